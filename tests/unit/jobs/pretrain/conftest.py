"""A tiny corpus, tokenizer and token shards as real artifacts, and contexts for the two stages."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.jobs.texts import documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_api.status import Artifact, InputRecord
from hatchery_jobs.pretrain import encode
from hatchery_jobs.pretrain.launcher.protocol import WorkerSpec
from hatchery_jobs.runtime.artifacts import open_draft
from hatchery_jobs.runtime.context import Context
from hatchery_jobs.runtime.progress import ProgressReporter

VOCABULARY = 300
EOS = "<|endoftext|>"

SPEC = {
    "corpora": [{"corpusRef": {"name": "texts"}}],
    "tokenizerRef": {"name": "words"},
    "model": {"size": "tiny", "overrides": {"layers": 2, "heads": 2, "hiddenSize": 32}},
    "data": {"sequenceLength": 32},
    "schedule": {"steps": 12, "warmupSteps": 2, "peakLr": 3e-3, "minLr": 3e-4},
    "batch": {"sequences": 4, "perDevice": 2},
    "checkpoint": {"everySteps": 5, "keepLast": 2},
    "evaluate": {"everySteps": 4},
}


@dataclass
class Bench:
    """A folder of artifacts and contexts over it."""

    root: Path

    def artifact(self, role: str, name: str, fill) -> InputRecord:
        draft = open_draft(str(self.root / name), "key", {}, self.root)
        fill(draft.folder)
        artifact, _ = draft.commit()
        return InputRecord(role=role, kind="Any", name=name, uri=artifact.uri, digest=artifact.digest)

    def corpus(self, role: str = "corpus", name: str = "texts", train: int = 60, validation: int = 10) -> InputRecord:
        def fill(folder: Path) -> None:
            (folder / "data").mkdir()
            for split, count, seed in (("train", train, 1), ("validation", validation, 2)):
                table = pa.table({"text": documents(count, seed)})
                pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")

        return self.artifact(role, name, fill)

    def tokenizer(self, *, eos: str | None = EOS) -> InputRecord:
        def fill(folder: Path) -> None:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=VOCABULARY,
                special_tokens=[EOS],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
            tokenizer.train_from_iterator(documents(60, 1), trainer)
            tokenizer.save(str(folder / "tokenizer.json"))
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
            (folder / "tokenizer_config.json").write_text(json.dumps(config))

        return self.artifact("tokenizer", "words", fill)

    def context(self, stage: str, inputs: list[InputRecord], folder: str = "runs", **changes) -> Context:
        """A context of a stage; `changes` replace top-level fields of the spec or merge into its objects."""
        spec = {k: {**v, **changes.pop(k, {})} if isinstance(v, dict) else v for k, v in SPEC.items()} | changes
        job = JobInput[PretrainRunSpec](
            kind="PretrainRun",
            namespace="lab",
            name="run",
            uid="1",
            stage=stage,
            attempt=1,
            spec=PretrainRunSpec.model_validate(spec),
            inputs=inputs,
            output=Output(root=str(self.root / folder)),
            hub=HubTarget(endpoint="http://localhost"),
        )
        scratch = self.root / "scratch" / folder
        scratch.mkdir(parents=True, exist_ok=True)
        return Context(job=job, progress=ProgressReporter(stage), scratch=scratch, stop=threading.Event())

    def encoded(self, **changes) -> InputRecord:
        """The tokens' artifact."""
        outcome = encode.run(self.context("encode", [self.corpus(), self.tokenizer()], "tokens", **changes))
        return InputRecord(
            role="tokens", kind="PretrainRun", name="run", uri=outcome.artifact.uri, digest=outcome.artifact.digest
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HATCHERY_METRICS_PORT", "0")
    for name in ("HATCHERY_NODES", "HATCHERY_PROCESSES_PER_NODE", "HATCHERY_NODE_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose tokens are made once; for tests that only read them."""
    return Bench(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="session")
def inputs(shared_bench: Bench) -> list[InputRecord]:
    """Inputs of the train stage."""
    tokens = shared_bench.encoded()
    tokenizer = InputRecord(
        role="tokenizer",
        kind="TokenizerBuild",
        name="words",
        uri=str(shared_bench.root / "words" / "key"),
        digest=_digest(shared_bench.root / "words" / "key"),
    )
    return [tokens, tokenizer]


@pytest.fixture
def make_worker(bench: Bench, inputs: list[InputRecord], tmp_path: Path) -> Callable[..., WorkerSpec]:
    """Makes the worker of a run by name; the inputs are those of all tests unless others are given."""

    def make(name: str, given: list[InputRecord] = inputs, **changes) -> WorkerSpec:
        context = bench.context("train", given, name, **changes)
        folder, local_folder = tmp_path / name, tmp_path / f"{name}-local"
        folder.mkdir(exist_ok=True)
        local_folder.mkdir(exist_ok=True)
        return WorkerSpec(
            job=context.job,
            tokens=context.input("tokens"),
            tokenizer=context.input("tokenizer"),
            folder=folder,
            local_folder=local_folder,
            first_node=True,
            metrics_port=0,
        )

    return make


def _digest(folder: Path) -> str:
    from hatchery_jobs.runtime.artifacts import verify

    artifact = verify(folder)
    assert isinstance(artifact, Artifact)
    return artifact.digest
