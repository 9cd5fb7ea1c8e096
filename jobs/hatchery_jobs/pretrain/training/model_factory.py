"""The model, from a configuration or from weights; the only place that knows names of the transformers library."""

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
from hatchery_jobs.runtime import DataError, SpecError

FUSED_GELU: Final = "gelu_pytorch_tanh"
"""The same function as GPT-2's and T5's gelu_new, as one kernel: a tenth to a third more tokens per second. The other
families' activations, gelu and silu, are one kernel already."""

POSITION_TABLES: Final = {
    "gpt2": "transformer.wpe",
    "bert": "bert.embeddings.position_embeddings",
    "roberta": "roberta.embeddings.position_embeddings",
}
"""Names of the learnt positions of the families that have any."""

LONGEST_WAVE: Final = 10_000.0
"""Positions, over 2 pi, of the longest of the waves that positions are made of at the start."""

KERNELS: Final = {"auto": "sdpa", "sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
"""`spec.attention` in the library's words."""

FRESH_HEADS: Final = ("bert.pooler.", "cls.seq_relationship.")
"""Parameters that weights to go on from may lack: a masked model without the next-sentence head."""


def build_model(
    shape: ModelConfig,
    special: SpecialIds,
    seed: int,
    *,
    attention: str = "auto",
    gradient_checkpointing: bool = False,
    weights: Path | None = None,
) -> Any:
    """A model in training mode; fresh weights depend on shape and seed alone.

    Args:
        shape: its sizes.
        special: ids that go into its configuration.
        seed: decides the fresh weights.
        attention: kernel, as in the spec.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        weights: folder of a saved model to go on from.

    Raises:
        SpecError: the kernel needs a GPU or a library that is not here.
        DataError: the weights cannot be read or do not fit the family.
    """
    torch.manual_seed(seed)
    model_class, kernel = _class(shape), _kernel(attention)
    if weights is None:
        model = model_class._from_config(_config(shape, special), attn_implementation=kernel)  # noqa: SLF001 - no other
        _order_positions(model, shape)
    else:
        model = _loaded(model_class, weights, shape, kernel)
    model.set_output_embeddings(Head(model.get_output_embeddings()))
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _deviation(shape: ModelConfig) -> float:
    """Standard deviation of fresh weights: 0.023 for a width of 768, where GPT-2 has 0.02 for every width.

    Nguyen and Salazar 2019, "Transformers without Tears", arXiv:1910.05895, section 2.2. Narrow models learn faster so.
    """
    return math.sqrt(2 / (5 * shape.width))


def _order_positions(model: Any, shape: ModelConfig) -> None:
    """Fills a table of positions with waves of the deviation of all weights, so that neighbours are neighbours from
    the start; as random rows they have to be learnt first.
    """
    if shape.architecture in POSITION_TABLES:
        table = model.get_submodule(POSITION_TABLES[shape.architecture])
        waves = sinusoids(shape.positions, shape.width) * math.sqrt(2) * _deviation(shape)
        with torch.no_grad():
            table.weight[shape.skipped_positions :] = waves


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Sines, then cosines, of ever lower frequencies, (positions, width) (Vaswani et al. 2017, section 3.5)."""
    exponents = torch.arange((width + 1) // 2) * (-2 / width)
    angles = torch.arange(positions)[:, None] * LONGEST_WAVE**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def _class(shape: ModelConfig) -> Any:
    if shape.next_sentence:
        return hf.BertForPreTraining
    return {
        "gpt2": hf.GPT2LMHeadModel,
        "llama": hf.LlamaForCausalLM,
        "bert": hf.BertForMaskedLM,
        "roberta": hf.RobertaForMaskedLM,
        "t5": hf.T5ForConditionalGeneration,
    }[shape.architecture]


def _kernel(attention: str) -> str:
    if attention == "flash" and not (torch.cuda.is_available() and hf.utils.is_flash_attn_2_available()):
        raise SpecError(
            Reason.INVALID_SPEC,
            "spec.attention: flash needs a GPU of NVIDIA and the library flash-attn in the image of the jobs, and one "
            "of them is not here; take auto, which uses torch's own fused kernel",
        )
    return KERNELS[attention]


def _config(shape: ModelConfig, special: SpecialIds) -> Any:
    match shape.architecture:
        case "gpt2":
            return _gpt2(shape, special)
        case "llama":
            return _llama(shape, special)
        case "t5":
            return _t5(shape, special)
        case _:
            return _encoder(shape, special)


def _gpt2(shape: ModelConfig, special: SpecialIds) -> Any:
    return hf.GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.positions,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_inner=shape.feed_forward,
        activation_function=FUSED_GELU,
        embd_pdrop=shape.dropout,
        attn_pdrop=shape.dropout,
        resid_pdrop=shape.dropout,
        initializer_range=_deviation(shape),
        bos_token_id=special.eos,  # texts follow the end of another one in training
        eos_token_id=special.eos,
    )


def _llama(shape: ModelConfig, special: SpecialIds) -> Any:
    return hf.LlamaConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.positions,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_width,
        attention_dropout=shape.dropout,
        initializer_range=_deviation(shape),
        tie_word_embeddings=shape.tied,
        bos_token_id=special.eos,
        eos_token_id=special.eos,
    )


def _encoder(shape: ModelConfig, special: SpecialIds) -> Any:
    config, segments = (hf.RobertaConfig, 1) if shape.architecture == "roberta" else (hf.BertConfig, 2)
    return config(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.positions + shape.skipped_positions,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        type_vocab_size=segments,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        initializer_range=_deviation(shape),
        bos_token_id=special.cls,
        eos_token_id=special.sep,
        pad_token_id=special.padding(),
    )


def _t5(shape: ModelConfig, special: SpecialIds) -> Any:
    """Version 1.1 with the embedding of the first version: gated layers learn more for their size, and one table for
    input and output is what a small vocabulary of a corpus of one's own wants.
    """
    return hf.T5Config(
        vocab_size=shape.vocab,
        n_positions=shape.positions,
        d_model=shape.width,
        d_kv=shape.head_width,
        d_ff=shape.feed_forward,
        num_layers=shape.layers,
        num_heads=shape.heads,
        relative_attention_num_buckets=RELATIVE_POSITIONS,
        feed_forward_proj=f"gated-{FUSED_GELU}",
        dropout_rate=shape.dropout,
        pad_token_id=special.padding(),
        decoder_start_token_id=special.padding(),
        eos_token_id=special.eos,
    )


def _loaded(model_class: Any, folder: Path, shape: ModelConfig, kernel: str) -> Any:
    try:
        config = hf.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        for name in DROPOUTS[shape.architecture]:
            setattr(config, name, shape.dropout)
        model, found = model_class.from_pretrained(
            folder,
            config=config,
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
    absent = sorted(name for name in found["missing_keys"] if not name.startswith(FRESH_HEADS))
    if absent:
        raise DataError(
            Reason.UNREADABLE_INPUT,
            f"spec.model.from: {folder} lacks {len(absent)} parameters of {model_class.__name__}, the first is "
            f"{absent[0]}; they would be random: take a model with the head of this objective",
        )
    return model


DROPOUTS: Final = {
    "gpt2": ("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    "llama": ("attention_dropout",),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "roberta": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "t5": ("dropout_rate",),
}
"""Names of the dropout in each family's configuration."""
