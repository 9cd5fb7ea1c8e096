"""The operator bench's figures as numbers for the budget, as a table, and as a section of RESULTS.md."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.operator_rounds import HOT_UPDATES_PER_SECOND, IDLE_SECONDS, NEW_OBJECTS, SINGLES, Measured
from tests.cluster.tools import KUBERNETES, TRAINING_OPERATOR

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "## Operator"
"""The section's heading; the date follows."""

SMALL, LARGE = 300, 1000
"""Numbers of objects."""

Sizes = Mapping[int, Measured]
"""What one operator was measured at, by number of objects."""


def figures(ours: Sizes, peer: Sizes) -> dict[str, float]:
    """What the budget bounds, by its names."""
    settled, disturbed = ours[LARGE].settled, ours[LARGE].disturbed
    assert settled, "ours is measured settled"
    assert disturbed, "ours is measured disturbed"
    found = {}
    for count in (SMALL, LARGE):
        found[f"objects-ratio-{count}"] = ours[count].burst.objects_per_second / peer[count].burst.objects_per_second
        found[f"memory-ratio-{count}"] = ours[count].settled_mib / peer[count].settled_mib
    return found | {
        "all-jobs-seconds-1000": ours[LARGE].burst.seconds,
        "first-status-p99-seconds-1000": ours[LARGE].burst.p(99),
        "single-first-status-seconds": settled.single_seconds,
        "memory-mib-1000": ours[LARGE].settled_mib,
        "restart-ready-seconds": disturbed.restart.ready_seconds,
        "restart-writes": disturbed.restart.writes,
        "restart-certificate-writes": disturbed.restart.certificate_writes,
        "idle-writes-per-minute": settled.idle.writes_per_minute,
        "idle-cores": settled.idle.cores,
        "hot-object-p99-ratio": disturbed.hot.ratio,
        "hot-object-updates-per-second": disturbed.hot.updates_per_second,
    }


Row = tuple[str, Callable[[Measured], str]]

ROWS: Sequence[Row] = (
    ("objects a second, first apply until every child exists", lambda m: f"{m.burst.objects_per_second:.1f}"),
    ("the same, every burst", lambda m: ", ".join(f"{speed:.1f}" for speed in m.speeds)),
    ("seconds until every child exists", lambda m: f"{m.burst.seconds:.1f}"),
    ("objects created a second", lambda m: f"{m.burst.applied_per_second:.0f}"),
    ("children an object", lambda m: ", ".join(f"{n / len(m.burst.applied):g} {r}" for r, n in m.burst.made().items())),
    ("apply to first status, p50 / p99, s", lambda m: f"{m.burst.p(50):.2f} / {m.burst.p(99):.2f}"),
    ("API writes an object", lambda m: f"{m.burst.per_object(m.burst.own):.2f}"),
    (
        "of them events",
        lambda m: f"{m.burst.per_object(write for write in m.burst.own if write.resource == 'events'):.2f}",
    ),
    ("CPU seconds of the operator", lambda m: f"{m.cpu_seconds:.1f}"),
    ("resident memory settled / highest, MiB", lambda m: f"{m.settled_mib:.0f} / {m.peak_mib:.0f}"),
    ("settled: writes a minute", lambda m: f"{m.settled.idle.writes_per_minute:.0f}" if m.settled else ""),
    ("settled: lease writes a minute", lambda m: f"{m.settled.idle.leases_per_minute:.0f}" if m.settled else ""),
    ("settled: cores", lambda m: f"{m.settled.idle.cores:.3f}" if m.settled else ""),
    ("restart: seconds until ready", lambda m: f"{m.disturbed.restart.ready_seconds:.1f}" if m.disturbed else ""),
    ("restart: writes", lambda m: f"{m.disturbed.restart.writes}" if m.disturbed else ""),
    ("restart: certificates published", lambda m: f"{m.disturbed.restart.certificate_writes}" if m.disturbed else ""),
    ("single object, apply to first status, s", lambda m: f"{m.settled.single_seconds:.3f}" if m.settled else ""),
    ("p99 of first status, calm, s", lambda m: _seconds(m.disturbed.hot.calm_seconds) if m.disturbed else ""),
    (
        "p99 of first status, beside a hot object, s",
        lambda m: _seconds(m.disturbed.hot.hot_seconds) if m.disturbed else "",
    ),
    (
        "updates a second of the hot object",
        lambda m: f"{m.disturbed.hot.updates_per_second:.0f}" if m.disturbed else "",
    ),
)
"""What is shown, from what is measured."""


def _seconds(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def table(measured: Mapping[str, Sizes]) -> str:
    """All figures of all operators, a column an operator and number of objects."""
    columns = [(name, count, sizes[count]) for name, sizes in measured.items() for count in sizes]
    lines = ["| | " + " | ".join(f"{name}, {count:,}" for name, count, _ in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    lines += [f"| {title} | " + " | ".join(show(figure) for *_, figure in columns) + " |" for title, show in ROWS]
    return "\n".join(lines)


def machine(load_average: float) -> str:
    """What it was measured on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return (
        f"{os.cpu_count()} {platform.machine()} cores ({_cpu_model()}), {memory_gib:.0f} GiB, {system}, "
        f"{platform.system()} {platform.release()}, load average {load_average:.1f} at the start.\n"
        f"Python {platform.python_version()}, Kubernetes {KUBERNETES}, {TRAINING_OPERATOR.name} {TRAINING_OPERATOR.tool.version}."
    )


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown model")


METHOD = f"""\
One etcd and kube-apiserver, no controllers, no kubelet. One operator at a time, each under its own account and role and
as shipped. The peer has one thread per kind, no admission webhook, and client-go's limit of 20 requests per second,
which bounds it. Compared: a CorpusBuild (one Job, with what it needs) and a PyTorchJob with one master (a pod and a
Service). All figures about writes are from the API server's audit log, so both share one clock and one way of counting.
Then the Jobs and pods of 1,000 objects are reported as running, and the settled operator is observed for {IDLE_SECONDS:.0f} s and given
{SINGLES} single objects. Hatchery's operator is then restarted and given {NEW_OBJECTS} new objects, without and with {HOT_UPDATES_PER_SECOND:.0f} updates per
second of another object."""


def section(measured: Mapping[str, Sizes], bars: Sequence[str], load_average: float) -> str:
    """The section of RESULTS.md."""
    return "\n\n".join(
        [
            f"{TITLE} ({datetime.now(UTC).date().isoformat()})",
            machine(load_average),
            METHOD,
            table(measured),
            "\n".join(f"    {line}" for line in bars),
        ]
    )


def replace_section(text: str, new: str) -> str:
    """A document with its operator section replaced, or with the section at its end."""
    before, found, rest = text.partition(f"\n{TITLE}")
    if not found:
        return f"{text.rstrip()}\n\n{new}\n"
    _, next_title, after = rest.partition("\n## ")
    return f"{before}\n{new}\n" + (f"{next_title}{after}" if next_title else "")


def record(new: str, path: Path = RESULTS) -> None:
    """Writes the section into a document."""
    path.write_text(replace_section(path.read_text(encoding="utf-8"), new), encoding="utf-8")
