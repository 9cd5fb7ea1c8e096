"""Writes the dashboards, or checks that they are fresh: `python -m manifests.monitoring.generate [--check]`."""

import json
import sys
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from manifests.monitoring.control import control
from manifests.monitoring.evaluation import evaluation
from manifests.monitoring.fleet import fleet
from manifests.monitoring.run import run

from hatchery_api import generate as api

DASHBOARDS: Final = {"fleet": fleet, "run": run, "evaluation": evaluation, "operator": control}
"""Dashboards by the name of their file."""


def generated_files() -> dict[str, str]:
    """Content of every generated file, by path from the repository's root."""
    return {
        f"charts/hatchery/dashboards/{name}.json": json.dumps(make(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, make in DASHBOARDS.items()
    }


if __name__ == "__main__":
    sys.exit(api.main(generated_files()))
