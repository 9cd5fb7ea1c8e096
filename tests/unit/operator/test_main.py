"""The operator from its entry point: start, signal and metrics page."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.cluster.console import wait_for
from tests.cluster.control_plane import Ports
from tests.support.operator.builders import manifest

from hatchery_operator.__main__ import Operator
from hatchery_operator.settings import LeaderElection, Settings


def test_a_signal_ends_an_operator_that_still_waits_for_the_api_server(tmp_path: Path) -> None:
    ports = Ports.free()
    settings, kubeconfig, log = (tmp_path / name for name in ("settings.yaml", "kubeconfig", "log"))
    values = {"healthPort": ports.etcd, "metricsPort": ports.etcd_peer, "leaderElection": {"enabled": False}}
    settings.write_text(yaml.safe_dump(values))
    nowhere = {"clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{ports.api}"}}]}
    nowhere |= {"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "current-context": "c"}
    kubeconfig.write_text(yaml.safe_dump({**nowhere, "users": [{"name": "u", "user": {"token": "t"}}]}))
    command = [sys.executable, "-m", "hatchery_operator", "--config", str(settings)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, stderr=out)
    try:
        wait_for("the first refusal", lambda: "initial listing failed" in log.read_text(), why="", timeout_seconds=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("leads", [True, False])
def test_only_the_leader_tells_of_resources_so_that_a_sum_over_replicas_is_right(
    leads: bool,
) -> None:
    # without election an operator leads; with it one that never got the lease does not
    operator = Operator(
        Settings(operator_namespace="hatchery-system", leader_election=LeaderElection(enabled=not leads))
    )
    operator._cache.put(manifest("CorpusBuild", "code"))
    page = operator._metrics.text().decode()
    assert f"hatchery_leader {float(leads)}" in page
    assert ('name="code"' in page) is leads
