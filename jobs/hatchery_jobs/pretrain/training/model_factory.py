"""Builds the model from a `ModelConfig` or from pretrained weights."""

import math
from pathlib import Path
from typing import Any, Final

import torch
import transformers as hf
from safetensors import SafetensorError

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.data import SpecialIds
from hatchery_jobs.pretrain.model import ModelConfig
from hatchery_jobs.pretrain.training.fused_loss import Head
from hatchery_jobs.runtime import DataError, SpecError

LONGEST_WAVE: Final = 10_000.0
"""Longest wavelength of the sinusoids that position tables start from, in positions divided by 2 pi."""

KERNELS: Final = {"auto": "sdpa", "sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
"""`spec.attention` as transformers names it."""


def build_model(
    config: ModelConfig,
    special: SpecialIds,
    seed: int,
    *,
    attention: str = "auto",
    gradient_checkpointing: bool = False,
    weights: Path | None = None,
) -> Any:
    """A model in training mode; fresh weights depend on config and seed alone.

    Args:
        config: its sizes.
        special: ids that go into its configuration.
        seed: of the fresh weights.
        attention: kernel, as in the spec.
        gradient_checkpointing: whether to recompute activations in the backward pass.
        weights: folder of a saved model to start from.

    Raises:
        SpecError: the kernel needs a GPU or a library that is missing.
        DataError: the weights cannot be read or do not fit the family.
    """
    torch.manual_seed(seed)
    model_class, kernel = _model_class(config), _kernel(attention)
    if weights is None:
        settings = config.family.to_library(config, special)
        library_config = getattr(hf, config.family.library_config)(**settings)
        model = model_class._from_config(library_config, attn_implementation=kernel)  # noqa: SLF001 - no public way
        _order_positions(model, config)
    else:
        model = _load(model_class, weights, config, kernel)
    model.set_output_embeddings(Head(model.get_output_embeddings()))
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _order_positions(model: Any, config: ModelConfig) -> None:
    """Initialises the table of trained positions with sinusoids of the weights' standard deviation, so that adjacent
    positions are similar from the start instead of random.
    """
    if config.family.position_table is not None:
        table = model.get_submodule(config.family.position_table)
        waves = sinusoids(config.positions, config.width) * math.sqrt(2) * config.init_std
        with torch.no_grad():
            table.weight[config.skipped_positions :] = waves


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Sines, then cosines, of ever lower frequencies, (positions, width) (Vaswani et al. 2017, section 3.5)."""
    exponents = torch.arange((width + 1) // 2) * (-2 / width)
    angles = torch.arange(positions)[:, None] * LONGEST_WAVE**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def _model_class(config: ModelConfig) -> Any:
    family = config.family
    name = family.library_next_sentence_model if config.next_sentence else family.library_model
    return getattr(hf, str(name))


def _kernel(attention: str) -> str:
    if attention == "flash" and not (torch.cuda.is_available() and hf.utils.is_flash_attn_2_available()):
        raise SpecError(
            Reason.INVALID_SPEC,
            "spec.attention: flash needs an NVIDIA GPU and the library flash-attn in the jobs image, and one is "
            "missing; use auto, which selects torch's own fused kernel",
        )
    return KERNELS[attention]


def _load(model_class: Any, folder: Path, config: ModelConfig, kernel: str) -> Any:
    try:
        library_config = hf.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        for name in config.family.dropouts:
            setattr(library_config, name, config.dropout)
        model, found = model_class.from_pretrained(
            folder,
            config=library_config,
            dtype=torch.float32,
            attn_implementation=kernel,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"spec.model.from: {folder} cannot be loaded as {model_class.__name__}: {error}; it needs config.json and "
            "model.safetensors of such a model",
        ) from error
    absent = sorted(name for name in found["missing_keys"] if not name.startswith(config.family.optional_parameters))
    if absent:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"spec.model.from: {folder} lacks {len(absent)} parameters of {model_class.__name__}, the first is "
            f"{absent[0]}; they would be random: use a model with the head of this objective",
        )
    return model
