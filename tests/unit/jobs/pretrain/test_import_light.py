"""What stages and the launcher import: never torch, which takes seconds and gigabytes."""

import subprocess
import sys

import pytest

LIGHT = [
    "data",
    "encode",
    "launcher",
    "model",
    "objectives",
    "preflight",
    "record",
    "report",
    "train",
]
PARTS_OF_RUN = ["launcher.launcher", "record.curve", "record.event_log", "record.sample_log", "data.pairs"]


@pytest.mark.parametrize("module", [*LIGHT, *PARTS_OF_RUN])
def test_a_stage_starts_without_torch(module):
    code = f"import sys\nimport hatchery_jobs.pretrain.{module}\n"
    code += "sys.exit(str({'torch', 'transformers', 'accelerate'} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
