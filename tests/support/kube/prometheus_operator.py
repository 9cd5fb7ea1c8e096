"""The CRDs of the Prometheus operator, from its Go module: a cluster validates our monitors against them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
"""Hash of the module's content, as in a go.sum."""

KINDS = ("podmonitors", "servicemonitors", "prometheusrules")


def definitions(folder: Path) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of the kinds in the chart; `folder` must be outside of any Go module."""
    command = ["go", "mod", "download", "-json", MODULE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    module = json.loads(done.stdout)
    assert module["Sum"] == SUM, f"{MODULE} is not what it was"
    crds = Path(module["Dir"]) / "example/prometheus-operator-crd"
    return [yaml.safe_load((crds / f"monitoring.coreos.com_{kind}.yaml").read_text()) for kind in KINDS]
