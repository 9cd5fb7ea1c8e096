"""The packages that every stage shares stay light: a pod that fails early must not first load torch."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "tokenizers", "huggingface_hub")


@pytest.mark.parametrize("package", ["runtime", "hub", "readers", "reporting"])
def test_a_shared_package_loads_no_heavy_library(package):
    code = f"import sys, hatchery_jobs.{package}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
