"""Pods and events as a real cluster reported them (tests/data/pods)."""

from pathlib import Path

import yaml

from hatchery_operator.domain.objects import Manifest
from hatchery_operator.domain.spec_paths import SpecPaths

DATA = Path(__file__).parents[2] / "data/pods"

NAMES = SpecPaths(
    "team",
    {
        "image": "localhost:5000/no-such-image:1",
        "hub": {"tokenSecret": {"name": "no-such-secret", "key": "token"}},
        "storage": {"claimName": "no-such-claim"},
        "placement": {"resources": {"requests": {"cpu": "900"}, "limits": {"nvidia.com/gpu": "8"}}},
        "batch": {"perDevice": 12},
    },
    "hatchery",
)


def situation(name: str) -> tuple[list[Manifest], list[Manifest]]:
    """Pods and events."""
    data = yaml.safe_load((DATA / f"{name}.yaml").read_text())
    return data["pods"], data["events"]
