"""A tokenizer from building blocks: byte-level BPE with the user's normalizers and pre-tokenizers."""

from collections.abc import Iterable, Sequence
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import SENTINEL, PreTokenizer, SpecialTokens, TokenizerBlocks, TokenizerBuildSpec
from hatchery_jobs.runtime import SpecError
from hatchery_jobs.tokenizer.probes import PROBES

ALPHABET: Final = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
"""The 256 characters that stand for the bytes; with all of them no text is unknown."""


def special_roles(tokens: SpecialTokens) -> dict[str, str]:
    """Special tokens by the role names of transformers, defaults filled in."""
    roles = {"eos_token": tokens.eos, "bos_token": tokens.bos or tokens.eos, "pad_token": tokens.pad or tokens.eos}
    others = {"unk": tokens.unk, "mask": tokens.mask, "cls": tokens.cls, "sep": tokens.sep}
    return roles | {f"{role}_token": text for role, text in others.items() if text}


def further_tokens(tokens: SpecialTokens) -> list[str]:
    """Special tokens without a role."""
    return [*(SENTINEL.format(n) for n in range(tokens.sentinels or 0)), *tokens.extra]


def special_tokens(tokens: SpecialTokens) -> list[str]:
    """All special tokens, each once; their ids are their places."""
    return list(dict.fromkeys([*special_roles(tokens).values(), *further_tokens(tokens)]))


def check_size(spec: TokenizerBuildSpec) -> None:
    """Refuses a vocabulary that cannot even hold the bytes and the special tokens.

    Raises:
        SpecError: it cannot.
    """
    least = len(ALPHABET) + len(special_tokens(spec.special_tokens))
    if spec.vocab_size < least:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.vocabSize: {spec.vocab_size} is less than the 256 bytes and the special tokens need; "
            f"ask for {least} or more",
        )


def untrained(blocks: TokenizerBlocks, unknown: str | None) -> Tokenizer:
    """The design, without a vocabulary.

    Raises:
        SpecError: the pre-tokenizers do not end with ByteLevel, lose text, or have a bad pattern.
    """
    if blocks.pre_tokenizers[-1].type != "ByteLevel":
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.build.preTokenizers: the last one is {blocks.pre_tokenizers[-1].type}; it must be ByteLevel, "
            "so that every text has tokens: add {type: ByteLevel, useRegex: false}",
        )
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    if blocks.normalizers:
        tokenizer.normalizer = normalizers.Sequence([getattr(normalizers, name)() for name in blocks.normalizers])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [_pre_tokenizer(item, index) for index, item in enumerate(blocks.pre_tokenizers)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    check_lossless(tokenizer, "spec.build.preTokenizers")
    return tokenizer


def _pre_tokenizer(item: PreTokenizer, index: int) -> pre_tokenizers.PreTokenizer:
    if item.type == "ByteLevel":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=item.use_regex)
    if item.type == "Digits":
        return pre_tokenizers.Digits(individual_digits=item.individual_digits)
    if item.type == "Split":
        return pre_tokenizers.Split(_pattern(item, index), behavior=item.behavior)
    simple: pre_tokenizers.PreTokenizer = getattr(pre_tokenizers, item.type)()
    return simple


def _pattern(item: PreTokenizer, index: int) -> Regex:
    where = f"spec.build.preTokenizers[{index}].pattern"
    if item.pattern is None:
        raise SpecError(Reason.INVALID_SPEC, f"{where}: type Split needs a pattern")
    try:
        return Regex(item.pattern)
    except Exception as error:
        # The library raises nothing more exact for an expression that does not parse.
        raise SpecError(Reason.INVALID_SPEC, f"{where}: {item.pattern!r} is no regular expression: {error}") from error


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer works on bytes, so that every text must come back from decoding."""
    return isinstance(tokenizer.decoder, decoders.ByteLevel)


def normalized(tokenizer: Tokenizer, text: str) -> str:
    """The text as the tokenizer's normalizer leaves it."""
    return tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text


def check_lossless(tokenizer: Tokenizer, field: str) -> None:
    """Refuses a byte-level design whose pre-tokenizers drop or add text; costs nothing, as no training is needed.

    Raises:
        SpecError: it does.
    """
    if not is_byte_level(tokenizer):
        return
    decoder = decoders.ByteLevel()
    for probe in PROBES:
        text = normalized(tokenizer, probe)
        pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        if (back := decoder.decode(pieces)) != text:
            raise SpecError(
                Reason.INVALID_SPEC,
                f"{field}: text is not kept: {text!r} comes back as {back!r}; leave out what removes whitespace "
                "(Whitespace, WhitespaceSplit, behavior removed), adds a prefix space, or encodes bytes twice",
            )


def trained(tokenizer: Tokenizer, spec: TokenizerBuildSpec, batches: Iterable[Sequence[str]]) -> Tokenizer:
    """The design with a vocabulary learnt from texts."""
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        min_frequency=spec.min_frequency,
        special_tokens=special_tokens(spec.special_tokens),
        initial_alphabet=list(ALPHABET),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(batches), trainer=trainer)
    if spec.special_tokens.cls and spec.special_tokens.sep:
        _put_around(tokenizer, spec.special_tokens.cls, spec.special_tokens.sep)
    return tokenizer


def _put_around(tokenizer: Tokenizer, cls: str, sep: str) -> None:
    """Makes the tokenizer encode texts and pairs of texts as an encoder has learnt them."""
    template = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in (cls, sep)],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
