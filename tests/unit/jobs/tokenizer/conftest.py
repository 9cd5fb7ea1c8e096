import argparse
import json
import textwrap
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.tokenizer import TokenizerBuildSpec
from hatchery_api.status import InputRecord
from hatchery_jobs.runtime.artifacts import open_draft
from hatchery_jobs.runtime.context import Context
from hatchery_jobs.runtime.progress import ProgressReporter

Make = Callable[..., Context[TokenizerBuildSpec]]


@pytest.fixture(scope="session")
def programs() -> list[str]:
    """Real source files, cut into documents of a few functions each."""
    files = [Path(module.__file__) for module in (argparse, textwrap, tokenize, json)]
    return [part for file in files for part in file.read_text().split("\n\n\n") if part]


def write_split(corpus: Path, split: str, files: Sequence[Sequence[str]]) -> list[Path]:
    """Writes a split as parquet files, the way the corpus stage does."""
    (corpus / "data").mkdir(parents=True, exist_ok=True)
    paths = [corpus / "data" / f"{split}-{i:05}-of-{len(files):05}.parquet" for i in range(len(files))]
    for path, texts in zip(paths, files, strict=True):
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=7)
    return paths


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the context of a TokenizerBuild over a corpus with two splits."""

    def make(
        spec: dict[str, Any],
        train: Sequence[Sequence[str]],
        validation: Sequence[Sequence[str]],
        *,
        root: str = "runs",
        endpoint: str = "http://127.0.0.1:1",
    ) -> Context[TokenizerBuildSpec]:
        draft = open_draft(str(tmp_path / root / "corpus"), "c0", {}, tmp_path)
        for split, files in (("train", train), ("validation", validation)):
            write_split(draft.folder, split, files)
        artifact, _ = draft.commit()
        job = JobInput[TokenizerBuildSpec](
            kind="TokenizerBuild",
            namespace="team",
            name="py",
            uid="u",
            stage="vocabulary",
            attempt=1,
            spec=TokenizerBuildSpec.model_validate({"corpusRef": {"name": "c"}, **spec}),
            inputs=[InputRecord(role="corpus", kind="CorpusBuild", name="c", uri=artifact.uri, digest=artifact.digest)],
            output=Output(root=str(tmp_path / root)),
            hub=HubTarget(endpoint=endpoint),
        )
        return Context(job=job, progress=ProgressReporter("vocabulary"), scratch=tmp_path / "scratch")

    return make
