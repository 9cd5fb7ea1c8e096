"""Builds small corpora the way a pod does."""

import itertools

import pytest

from hatchery_api.contract import JobInput
from hatchery_api.resources.corpus import CorpusBuildSpec
from hatchery_jobs.corpus import pipeline
from hatchery_jobs.runtime.context import Context
from hatchery_jobs.runtime.progress import ProgressReporter


@pytest.fixture
def folder(tmp_path):
    """Where the input lies."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def make_context(tmp_path, folder):
    """Gives a function that makes the context of one build."""
    scratches = itertools.count()

    def make(root="store", endpoint="http://127.0.0.1:1", files=None, **spec):
        source = {"name": "a", "files": {"urls": [f"{folder}/**/*.*"]} | (files or {})}
        spec = {"sources": [source], "split": {"validation": 0}} | spec
        job = JobInput[CorpusBuildSpec](
            kind="CorpusBuild",
            namespace="n",
            name="corpus",
            uid="u",
            stage="build",
            attempt=1,
            spec=CorpusBuildSpec.model_validate(spec),
            output={"root": str(tmp_path / root)},
            hub={"endpoint": endpoint},
        )
        scratch = tmp_path / f"scratch{next(scratches)}"
        scratch.mkdir()
        return Context(job=job, progress=ProgressReporter("build"), scratch=scratch)

    return make


@pytest.fixture
def make(make_context):
    """Gives a function that builds a corpus."""
    return lambda **spec: pipeline.run(make_context(**spec))
