from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.evaluate import EvalRunSpec
from hatchery_api.status import InputRecord
from hatchery_jobs.evaluate.model import LoadedModel
from hatchery_jobs.runtime.artifacts import open_draft
from hatchery_jobs.runtime.context import Context
from hatchery_jobs.runtime.progress import ProgressReporter

END = "<|endoftext|>"
POSITIONS = 96
TEXTS = [
    "def area(a, b):\n    return a * b\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n",
    "naïve 漢字 🎉 = 'text'\n",
    "",
    "import numpy as np\n\ndef mean(values):\n    return np.mean(values)\n",
    "for i in range(10):\n    print(i)\n" * 9,
]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    plain.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token=END, bos_token=END, clean_up_tokenization_spaces=False
    )


def tiny_model(vocabulary: int, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3
    )
    config.bos_token_id = config.eos_token_id = 0
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def loaded(tokenizer: Any) -> LoadedModel:
    return LoadedModel(model=tiny_model(len(tokenizer)), tokenizer=tokenizer, parameters=1, positions=POSITIONS)


@pytest.fixture
def model_folder(tmp_path: Path, loaded: LoadedModel) -> Path:
    loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def write_corpus(folder: Path, texts: Sequence[str], split: str = "validation") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / f"data/{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def make(tmp_path: Path, model_folder: Path) -> Callable[..., Context[EvalRunSpec]]:
    """Makes the context of an EvalRun; every perplexity task gets the same corpus."""

    def artifact(role: str, fill: Callable[[Path], object]) -> InputRecord:
        draft = open_draft(str(tmp_path / "artifacts" / role), "key", {}, tmp_path)
        fill(draft.folder)
        made = draft.existing() or draft.commit()
        return InputRecord(role=role, kind="any", name=f"my-{role}", uri=made[0].uri, digest=made[0].digest)

    def copy_model(folder: Path) -> None:
        for file in model_folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    def make(
        tasks: list[dict[str, Any]],
        *,
        model: dict[str, Any] | None = None,
        endpoint: str = "http://127.0.0.1:1",
        texts: Sequence[str] = TEXTS,
    ) -> Context[EvalRunSpec]:
        inputs = [
            artifact(f"corpus-{task['name']}", lambda folder: write_corpus(folder, texts))
            for task in tasks
            if "perplexity" in task
        ]
        if model is None:
            inputs.append(artifact("model", copy_model))
        job = JobInput[EvalRunSpec](
            kind="EvalRun",
            namespace="team",
            name="py-eval",
            uid="u",
            stage="evaluate",
            attempt=1,
            spec=EvalRunSpec.model_validate({"model": model or {"pretrainRef": {"name": "m"}}, "tasks": tasks}),
            inputs=inputs,
            output=Output(root=str(tmp_path / "runs")),
            hub=HubTarget(endpoint=endpoint),
        )
        return Context(job=job, progress=ProgressReporter("evaluate"), scratch=tmp_path / "scratch")

    return make
