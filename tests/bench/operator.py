"""The operator against Kubeflow's training-operator on one API server: speed, memory, writes, restart, fairness.

Run: .venv/bin/python -m tests.bench.operator [--record]; about eight minutes, and once three more to build the peer.
`operator.yaml` holds the bounds; the exit status is 1 when a figure is short of its own.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.bench import operator_report
from tests.bench.operator_audit import AuditedPlane, Journal
from tests.bench.operator_budget import bar_lines, load_budget
from tests.bench.operator_contestants import NAMESPACE, Contestant, Hatchery
from tests.bench.operator_peer import TrainingOperator
from tests.bench.operator_report import LARGE, SMALL, Sizes
from tests.bench.operator_rounds import Bench
from tests.cluster.control_plane import ControlPlane
from tests.cluster.layout import Layout

BURSTS = {SMALL: 3, LARGE: 1}
"""How often our operator plays a burst; the peer is slow and steady, so once is enough."""

HOT_ROUNDS = 3
"""The same for the hot object."""


def prepare(plane: ControlPlane) -> None:
    """The namespace of the objects, with the account that the controllers would give it."""
    plane.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}}
    plane.apply([account])


def sizes(bench: Bench, *, bursts: dict[int, int], hot_rounds: int = 0) -> Sizes:
    """One operator at both numbers of objects."""
    return {
        SMALL: bench.measure(SMALL, bursts=bursts[SMALL]),
        LARGE: bench.measure(LARGE, bursts=bursts[LARGE], settled=True, hot_rounds=hot_rounds),
    }


def measure(folder: Path) -> dict[str, Sizes]:
    """Both operators, by name, ours first."""
    plane_folder, our_folder, peer_folder = (folder / name for name in ("plane", "ours", "peer"))
    our_folder.mkdir()
    peer_folder.mkdir()
    with AuditedPlane(plane_folder) as plane:
        prepare(plane)
        journal = Journal(plane.audit_log)
        ours: Contestant = Hatchery(plane, our_folder)
        peer: Contestant = TrainingOperator(plane, peer_folder, Layout.from_environment())
        return {
            ours.name: sizes(Bench(plane, journal, ours), bursts=BURSTS, hot_rounds=HOT_ROUNDS),
            peer.name: sizes(Bench(plane, journal, peer), bursts=dict.fromkeys(BURSTS, 1)),
        }


def main() -> int:
    """Measures, prints, and records where asked to."""
    parser = argparse.ArgumentParser(description="Measures the operator against Kubeflow's training-operator.")
    parser.add_argument("--record", action="store_true", help=f"write the section of {operator_report.RESULTS.name}")
    record = parser.parse_args().record
    load_average, budget = os.getloadavg()[0], load_budget()
    with tempfile.TemporaryDirectory() as name:
        measured = measure(Path(name))
    # printed before it is judged: minutes of measuring are not lost to a spelling mistake in the budget
    print(operator_report.table(measured))
    bars = bar_lines(budget, operator_report.figures(*measured.values()))
    print(*bars, sep="\n")
    if record:
        operator_report.record(operator_report.section(measured, bars, load_average))
    return int(any(line.endswith("short") for line in bars))


if __name__ == "__main__":
    sys.exit(main())
