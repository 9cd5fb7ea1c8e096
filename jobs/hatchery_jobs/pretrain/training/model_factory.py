"""Builds transformers models, randomly initialized or from weights; only this module knows transformers' names."""

import math
from pathlib import Path
from typing import Any, Final

import torch
import transformers as hf
from safetensors import SafetensorError

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.data.vocabulary import SpecialIds
from hatchery_jobs.pretrain.model.config import RELATIVE_POSITIONS, ModelConfig
from hatchery_jobs.pretrain.objectives.fused_loss import Head
from hatchery_jobs.runtime.errors import DataError, SpecError

FUSED_GELU: Final = "gelu_pytorch_tanh"
"""GPT-2's and T5's gelu_new as a single kernel: 10% to 33% more tokens per second. The activations of the other
families, gelu and silu, are single kernels already."""

POSITION_TABLES: Final = {
    "gpt2": "transformer.wpe",
    "bert": "bert.embeddings.position_embeddings",
    "roberta": "roberta.embeddings.position_embeddings",
}
"""Modules of the learned position embeddings, in the families that have them."""

LONGEST_WAVE: Final = 10_000.0
"""Longest wavelength of the sinusoidal initialization of positions, in positions over 2 pi."""

KERNELS: Final = {"auto": "sdpa", "sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
"""`spec.attention` → transformers' `attn_implementation`."""

OPTIONAL_HEADS: Final = ("bert.pooler.", "cls.seq_relationship.")
"""Parameters that initial weights may lack: the next-sentence head of a masked model."""


def build_model(
    config: ModelConfig,
    special: SpecialIds,
    seed: int,
    *,
    attention: str = "auto",
    gradient_checkpointing: bool = False,
    weights: Path | None = None,
) -> Any:
    """A model in training mode; its random initialization depends on config and seed alone.

    Args:
        config: Family and sizes.
        special: Ids of the special tokens.
        seed: Of the random initialization.
        attention: `spec.attention`.
        gradient_checkpointing: Whether the backward pass recomputes activations.
        weights: Folder of a saved model to start from.

    Raises:
        SpecError: the attention kernel needs a GPU or a library that is missing.
        DataError: the weights are unreadable or of another family.
    """
    torch.manual_seed(seed)
    model_class, kernel = _class(config), _kernel(attention)
    if weights is None:
        model = model_class._from_config(_hf_config(config, special), attn_implementation=kernel)  # noqa: SLF001 - not public
        _init_positions(model, config)
    else:
        model = _load(model_class, weights, config, kernel)
    model.set_output_embeddings(Head(model.get_output_embeddings()))
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _deviation(config: ModelConfig) -> float:
    """Standard deviation of the random initialization: 0.023 for a width of 768, where GPT-2 has 0.02 for every width.

    Nguyen and Salazar 2019, "Transformers without Tears", arXiv:1910.05895, section 2.2. It speeds up narrow models.
    """
    return math.sqrt(2 / (5 * config.width))


def _init_positions(model: Any, config: ModelConfig) -> None:
    """Initializes position embeddings with sinusoids of the same deviation as all weights.

    Neighbouring positions are then similar from the start; with random rows a model has to learn that first.
    """
    if config.architecture in POSITION_TABLES:
        table = model.get_submodule(POSITION_TABLES[config.architecture])
        waves = sinusoids(config.positions, config.width) * math.sqrt(2) * _deviation(config)
        with torch.no_grad():
            table.weight[config.skipped_positions :] = waves


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Sines, then cosines, of decreasing frequencies, (positions, width) (Vaswani et al. 2017, section 3.5)."""
    exponents = torch.arange((width + 1) // 2) * (-2 / width)
    angles = torch.arange(positions)[:, None] * LONGEST_WAVE**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def _class(config: ModelConfig) -> Any:
    if config.next_sentence:
        return hf.BertForPreTraining
    return {
        "gpt2": hf.GPT2LMHeadModel,
        "llama": hf.LlamaForCausalLM,
        "bert": hf.BertForMaskedLM,
        "roberta": hf.RobertaForMaskedLM,
        "t5": hf.T5ForConditionalGeneration,
    }[config.architecture]


def _kernel(attention: str) -> str:
    if attention == "flash" and not (torch.cuda.is_available() and hf.utils.is_flash_attn_2_available()):
        raise SpecError(
            Reason.INVALID_SPEC,
            "spec.attention is flash, which needs an NVIDIA GPU and the library flash-attn in the jobs image, and one "
            "of them is missing; use auto, which selects torch's own fused kernel",
        )
    return KERNELS[attention]


def _hf_config(config: ModelConfig, special: SpecialIds) -> Any:
    match config.architecture:
        case "gpt2":
            return _gpt2(config, special)
        case "llama":
            return _llama(config, special)
        case "t5":
            return _t5(config, special)
        case _:
            return _encoder(config, special)


def _gpt2(config: ModelConfig, special: SpecialIds) -> Any:
    return hf.GPT2Config(
        vocab_size=config.vocab,
        n_positions=config.positions,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        n_inner=config.feed_forward,
        activation_function=FUSED_GELU,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        resid_pdrop=config.dropout,
        initializer_range=_deviation(config),
        bos_token_id=special.eos,  # in training a text follows the end of another one
        eos_token_id=special.eos,
    )


def _llama(config: ModelConfig, special: SpecialIds) -> Any:
    return hf.LlamaConfig(
        vocab_size=config.vocab,
        max_position_embeddings=config.positions,
        hidden_size=config.width,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        head_dim=config.head_width,
        attention_dropout=config.dropout,
        initializer_range=_deviation(config),
        tie_word_embeddings=config.tied,
        bos_token_id=special.eos,
        eos_token_id=special.eos,
    )


def _encoder(config: ModelConfig, special: SpecialIds) -> Any:
    config_class, segments = (hf.RobertaConfig, 1) if config.architecture == "roberta" else (hf.BertConfig, 2)
    return config_class(
        vocab_size=config.vocab,
        max_position_embeddings=config.positions + config.skipped_positions,
        hidden_size=config.width,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        type_vocab_size=segments,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        initializer_range=_deviation(config),
        bos_token_id=special.cls,
        eos_token_id=special.sep,
        pad_token_id=special.padding(),
    )


def _t5(config: ModelConfig, special: SpecialIds) -> Any:
    """T5 1.1 with the tied embeddings of T5 1.0: gated layers learn more for their size, and tied embeddings suit the
    small vocabulary of a custom corpus.
    """
    return hf.T5Config(
        vocab_size=config.vocab,
        n_positions=config.positions,
        d_model=config.width,
        d_kv=config.head_width,
        d_ff=config.feed_forward,
        num_layers=config.layers,
        num_heads=config.heads,
        relative_attention_num_buckets=RELATIVE_POSITIONS,
        feed_forward_proj=f"gated-{FUSED_GELU}",
        dropout_rate=config.dropout,
        pad_token_id=special.padding(),
        decoder_start_token_id=special.padding(),
        eos_token_id=special.eos,
    )


def _load(model_class: Any, folder: Path, config: ModelConfig, kernel: str) -> Any:
    try:
        hf_config = hf.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        for name in DROPOUTS[config.architecture]:
            setattr(hf_config, name, config.dropout)
        model, report = model_class.from_pretrained(
            folder,
            config=hf_config,
            dtype=torch.float32,
            attn_implementation=kernel,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"spec.model.from: {folder} cannot be loaded as {model_class.__name__}: {error}; it must contain the "
            "config.json and model.safetensors of such a model",
        ) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(OPTIONAL_HEADS))
    if missing:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"spec.model.from: {folder} lacks {len(missing)} parameters of {model_class.__name__}, the first is "
            f"{missing[0]}; they would be random: use a model with the head of this objective",
        )
    return model


DROPOUTS: Final = {
    "gpt2": ("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    "llama": ("attention_dropout",),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "roberta": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "t5": ("dropout_rate",),
}
"""Dropout fields of each family's transformers configuration."""
