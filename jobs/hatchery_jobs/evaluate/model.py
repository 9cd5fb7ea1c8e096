"""The model under evaluation: resolved, loaded in float32, and checked against its tokenizer."""

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
"""Files downloaded from a repository; no code, and no pickled weights, which could run code."""


@dataclass(frozen=True)
class ModelSource:
    """Where the model is."""

    name: str
    """Name of the PretrainRun or of the repository."""
    digest: str
    """Digest of the run's artifact, or the repository's commit."""
    snapshot: HubSnapshot | None
    """The repository at that commit; None for a PretrainRun."""

    def folder(self, context: Context[EvalRunSpec]) -> Path:
        """Its files on local disk."""
        if self.snapshot is None:
            return context.input("model")
        return self.snapshot.download(context.scratch / "model", *FILES)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for inference."""

    model: Any
    """A causal language model in evaluation mode."""
    tokenizer: Any
    """Its tokenizer."""
    parameters: int
    """Number of parameters."""
    positions: int | None
    """Context length in tokens; None when unlimited."""

    @property
    def end_id(self) -> int:
        """Id of the end-of-document token."""
        return int(self.tokenizer.eos_token_id)


def resolve_model(context: Context[EvalRunSpec]) -> ModelSource:
    """Resolves `spec.model`.

    Raises:
        SpecError: the Hub lacks the model or rejects the token.
        RetryableError: the Hub cannot be reached.
    """
    hub = context.job.spec.model.hub
    if hub is None:
        record = context.job.input("model")
        return ModelSource(record.name, record.digest, None)
    snapshot = find_snapshot(hub.repo, hub.revision, context.job.hub.endpoint, HUB_FIELD)
    return ModelSource(snapshot.repo, snapshot.commit, snapshot)


def load_model(source: ModelSource, folder: Path) -> LoadedModel:
    """Loads the model on the first accelerator, else the CPU.

    Raises:
        DataError: the files are not a causal language model, or model and tokenizer do not match.
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
            f"{source.name}: its files cannot be loaded as a causal language model: {error}; the folder must "
            "hold config.json, model.safetensors and a tokenizer",
        ) from error
    _check_vocabulary(source.name, len(tokenizer), model.get_input_embeddings().num_embeddings, tokenizer)
    config = model.config.get_text_config()
    return LoadedModel(
        model=model.eval().to(device),
        tokenizer=tokenizer,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        positions=getattr(config, "max_position_embeddings", None),
    )


def _check_vocabulary(name: str, tokens: int, embeddings: int, tokenizer: Any) -> None:
    # more embeddings than tokens are common: vocabularies are padded to a multiple that suits the hardware
    if tokens > embeddings:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"{name}: the tokenizer has {tokens} tokens, the model has embeddings for {embeddings}; "
            "use the tokenizer the model was trained with",
        )
    if tokenizer.eos_token_id is None:
        raise DataError(
            Reason.VOCABULARY_MISMATCH,
            f"{name}: the tokenizer has {tokens} tokens, but no end token; set its eos_token",
        )


def check_context_length(field: str, length: int, positions: int | None) -> None:
    """Checks a sequence length against the context length of the model.

    Raises:
        SpecError: it is longer.
    """
    if positions is not None and length > positions:
        raise SpecError(
            Reason.SEQUENCE_TOO_LONG,
            f"{field}: {length} tokens exceed the model's context length of {positions}; set {positions} or less",
        )
