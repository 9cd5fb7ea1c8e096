"""Retrains an existing tokenizer: keeps its pipeline and special tokens, learns a new vocabulary."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from hatchery_api.conditions import Reason
from hatchery_api.contract import CLAIM_SCHEME
from hatchery_api.resources.tokenizer import BaseTokenizer, TokenizerBuildSpec
from hatchery_jobs.hub import HubSnapshot, find_snapshot
from hatchery_jobs.runtime import SpecError, local_path
from hatchery_jobs.tokenizer.blocks import check_lossless

FIELD: Final = "spec.from.base"
"""Path of the field in the spec, for messages."""

FILES: Final = (
    "tokenizer*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
"""Patterns of the files that a tokenizer is loaded from; no code and no weights."""

KEPT_SETTINGS: Final = ("model_input_names", "padding_side", "truncation_side")
"""Settings of a base that the retrained tokenizer keeps."""


@dataclass(frozen=True)
class BaseSource:
    """A base tokenizer at a fixed version."""

    digest: str
    """Commit of its repository, or sha256 of its files."""
    source: HubSnapshot | Path
    """Repository or local folder with its files."""

    def folder(self, scratch: Path) -> Path:
        """Its files on local disk."""
        if isinstance(self.source, Path):
            return self.source
        return self.source.download(scratch / "base", *FILES)


def resolve_base(base: BaseTokenizer, endpoint: str) -> BaseSource:
    """Resolves `spec.from.base`.

    Raises:
        SpecError: it does not exist.
        RetryableError: the Hub is unreachable.
    """
    if not base.base.startswith((CLAIM_SCHEME, "file://", "/", "./", "../")):
        snapshot = find_snapshot(base.base, base.revision, endpoint, FIELD)
        return BaseSource(snapshot.commit, snapshot)
    folder = local_path(base.base)
    files = sorted(f for pattern in FILES for f in folder.glob(pattern) if f.is_file()) if folder else []
    if folder is None or not files:
        raise SpecError(
            Reason.SOURCE_NOT_FOUND, f"{FIELD}: {base.base} holds no tokenizer; name a folder with a tokenizer.json"
        )
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return BaseSource(digest.hexdigest(), folder)


def load_base(folder: Path) -> Any:
    """Loads the base without running code that comes with it.

    Raises:
        SpecError: it cannot be loaded, has no fast implementation, or is lossy.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"{FIELD}: cannot be loaded as a tokenizer: {error}; name one with a tokenizer.json",
        ) from error
    if not tokenizer.is_fast:
        raise SpecError(Reason.INVALID_SPEC, f"{FIELD}: has no tokenizer.json; convert it to a fast tokenizer")
    check_lossless(tokenizer.backend_tokenizer, FIELD)
    return tokenizer


def retrained(base: Any, spec: TokenizerBuildSpec, batches: Iterable[Sequence[str]]) -> Tokenizer:
    """Trains the base's pipeline on texts.

    Raises:
        SpecError: training drops one of its special tokens.
    """
    pipeline = json.loads(base.backend_tokenizer.to_str())
    frequency = {} if pipeline["model"]["type"] == "Unigram" else {"min_frequency": spec.min_frequency}
    new = base.train_new_from_iterator(iter(batches), spec.vocab_size, show_progress=False, **frequency)
    tokenizer = _with_own_ids(new.backend_tokenizer)
    for role, token in base_roles(base).items():
        if tokenizer.token_to_id(token) is None:
            raise SpecError(
                Reason.INVALID_SPEC,
                f"{FIELD}: training drops its {role} {token!r}; use another base, or spec.build",
            )
    return tokenizer


def base_roles(tokenizer: Any) -> dict[str, str]:
    """Special tokens by the role names of transformers."""
    return {role: str(token) for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}


def settings(base: Any) -> dict[str, Any]:
    """Settings that the retrained tokenizer is saved with."""
    return {name: getattr(base, name) for name in KEPT_SETTINGS}


def _with_own_ids(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the ids of its own vocabulary in its post-processors.

    The library updates the ids of a single post-processor only; a sequence of them would keep the base's ids.
    """
    pipeline = json.loads(tokenizer.to_str())
    for processor in _processors(pipeline["post_processor"]):
        for name, token in processor.get("special_tokens", {}).items():
            processor["special_tokens"][name]["ids"] = [tokenizer.token_to_id(text) for text in token["tokens"]]
        for name in processor.keys() & {"cls", "sep"}:
            processor[name][1] = tokenizer.token_to_id(processor[name][0])
    return Tokenizer.from_str(json.dumps(pipeline))


def _processors(processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    if processor is None:
        return []
    inner = processor.get("processors", [])
    return [processor, *(nested for item in inner for nested in _processors(item))]
