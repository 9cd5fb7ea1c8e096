"""The model that is evaluated: found, loaded in 32-bit floats, and checked against its tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.evaluate import EvalRunSpec
from hatchery_jobs.hub import HubSnapshot, find_snapshot
from hatchery_jobs.runtime import Context, DataError, SpecError

HUB_FIELD: Final = "spec.model.hub"
"""Path of the field, for messages."""

FILES: Final = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files of a repository that are read; never code, never pickled weights, which could run code."""


@dataclass(frozen=True)
class Source:
    """Where the model comes from."""

    name: str
    """Name of the run, or repository."""
    digest: str
    """Digest of the run's artifact, or commit of the repository."""
    snapshot: HubSnapshot | None
    """The repository's commit; absent for a PretrainRun."""

    def folder(self, context: Context[EvalRunSpec]) -> Path:
        """Its files on local disk."""
        if self.snapshot is None:
            return context.input("model")
        return self.snapshot.download(context.scratch / "model", *FILES)


@dataclass(frozen=True)
class Loaded:
    """A model ready to be asked."""

    model: Any
    """A causal language model in evaluation mode."""
    tokenizer: Any
    """Its tokenizer."""
    parameters: int
    """Numbers in the model."""
    positions: int | None
    """Tokens the model can see; None when nothing limits them."""

    @property
    def end_id(self) -> int:
        """Id of the token that ends a document."""
        return int(self.tokenizer.eos_token_id)


def find_model(context: Context[EvalRunSpec]) -> Source:
    """The model that the spec names.

    Raises:
        SpecError: the Hub has no such model.
        RetryableError: the Hub cannot be reached.
    """
    hub = context.job.spec.model.hub
    if hub is None:
        record = context.job.input("model")
        return Source(record.name, record.digest, None)
    snapshot = find_snapshot(hub.repo, hub.revision, context.job.hub.endpoint, HUB_FIELD)
    return Source(snapshot.repo, snapshot.commit, snapshot)


def load(source: Source, folder: Path) -> Loaded:
    """Loads the model on the first accelerator, else the CPU.

    Raises:
        DataError: the files are no model, or model and tokenizer do not belong together.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"{source.name}: its files cannot be loaded as a causal language model: {error}; it needs config.json, "
            "model.safetensors and the files of a tokenizer",
        ) from error
    _check_vocabulary(source.name, len(tokenizer), model.get_input_embeddings().num_embeddings, tokenizer)
    config = model.config.get_text_config()
    return Loaded(
        model=model.eval().to(device),
        tokenizer=tokenizer,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        positions=getattr(config, "max_position_embeddings", None),
    )


def _check_vocabulary(name: str, tokens: int, embeddings: int, tokenizer: Any) -> None:
    # More embeddings than tokens are usual: they are padded to a multiple that hardware likes.
    if tokens > embeddings:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"{name}: the tokenizer has {tokens} tokens, the model has embeddings for {embeddings}; "
            "use the tokenizer the model was trained with",
        )
    if tokenizer.eos_token_id is None:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"{name}: the tokenizer has {tokens} tokens, but none that ends a document; set its eos_token",
        )


def check_positions(field: str, length: int, positions: int | None) -> None:
    """Refuses sequences longer than the model can see.

    Raises:
        SpecError: they are.
    """
    if positions is not None and length > positions:
        raise SpecError(
            Reason.SEQUENCE_TOO_LONG,
            f"{field}: {length} tokens, but the model can see {positions}; ask for {positions} or less",
        )
