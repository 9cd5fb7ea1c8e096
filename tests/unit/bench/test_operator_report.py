from dataclasses import replace
from pathlib import Path

import pytest
from tests.bench.operator_audit import Burst, Write
from tests.bench.operator_budget import bar_lines, load_budget
from tests.bench.operator_report import LARGE, ROWS, SMALL, figures, record, replace_section, section, table
from tests.bench.operator_rounds import Disturbed, Hot, Idle, Measured, Restart, Settled
from tests.cluster.control_plane import ADMIN


def burst(seconds: float) -> Burst:
    """Ten objects, each with a Job and a status, over by the given time."""
    writes = []
    for number in range(10):
        name = f"run-{number}"
        writes.append(Write(ADMIN.common_name, "create", "runs", name, 201, 0.0, 0.1))
        writes.append(Write("me", "patch", "runs/status", name, 200, 0.2, 0.3))
        writes.append(Write("me", "create", "jobs", name, 201, 0.3, seconds))
    return Burst(writes, "me", "runs")


SETTLED = Settled(idle=Idle(writes_per_minute=0, leases_per_minute=12, cores=0.004), single_seconds=0.02)
DISTURBED = Disturbed(
    restart=Restart(ready_seconds=3.0, writes=0, certificate_writes=1),
    hot=Hot(calm_seconds=[1.0, 2.0, 9.0], hot_seconds=[3.0], updates_per_second=99),
)


def measured(seconds: float, settled_mib: float) -> Measured:
    return Measured(burst(seconds), [10 / seconds], 1.0, settled_mib, settled_mib + 10)


OURS = {SMALL: measured(2, 90), LARGE: replace(measured(5, 120), settled=SETTLED, disturbed=DISTURBED)}
PEER = {SMALL: measured(20, 60), LARGE: replace(measured(100, 100), settled=SETTLED)}


def test_every_bound_of_the_budget_has_its_figure() -> None:
    bars = bar_lines(load_budget(), figures(OURS, PEER))
    assert all(bar.endswith("pass") for bar in bars)


def test_ratios_are_ours_to_the_peers() -> None:
    found = figures(OURS, PEER)
    assert found["objects-ratio-300"] == pytest.approx(10)
    assert found["objects-ratio-1000"] == pytest.approx(20)
    assert found["memory-ratio-300"] == pytest.approx(1.5)


def test_a_hot_object_is_judged_by_medians() -> None:
    assert DISTURBED.hot.ratio == pytest.approx(1.5)


def test_the_table_shows_every_figure_of_both() -> None:
    lines = table({"ours": OURS, "peer": PEER}).splitlines()
    assert lines[0] == "| | ours, 300 | ours, 1,000 | peer, 300 | peer, 1,000 |"
    assert len(lines) == 2 + len(ROWS)
    assert {line.count("|") for line in lines} == {6}
    assert "| API writes an object | 2.00 | 2.00 | 2.00 | 2.00 |" in lines


def test_the_section_says_what_was_measured_where() -> None:
    text = section({"ours": OURS, "peer": PEER}, ["bar a 1 1 pass"], 0.5)
    assert text.startswith("## Operator (")
    for part in ("Kubernetes 1.", "training-operator v1.8.1", "Python 3.", "load average 0.5", "    bar a 1 1 pass"):
        assert part in text


def test_the_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# All\n\n## First\n\none\n\n## Operator (old)\n\nold\n\n## Last\n\nlast\n")
    record("## Operator (new)\n\nnew", path)
    expected = "# All\n\n## First\n\none\n\n## Operator (new)\n\nnew\n\n## Last\n\nlast\n"
    assert path.read_text() == expected
    record("## Operator (new)\n\nnew", path)
    assert path.read_text() == expected


@pytest.mark.parametrize("text", ["# All\n", "# All\n\n## Operator (old)\n\nold\n"])
def test_the_section_may_be_new_or_last(text: str) -> None:
    assert replace_section(text, "## Operator\n\nnew") == "# All\n\n## Operator\n\nnew\n"
