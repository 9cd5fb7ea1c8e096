"""A tokenizer from building blocks: byte-level BPE with the spec's normalizers and pre-tokenizers."""

from collections.abc import Iterable, Sequence
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from hatchery_api.conditions import Reason
from hatchery_api.resources.tokenizer import SENTINEL, PreTokenizer, SpecialTokens, TokenizerBlocks, TokenizerBuildSpec
from hatchery_jobs.runtime import SpecError

ALPHABET: Final = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
"""The 256 characters that stand for the bytes; a vocabulary with all of them has no unknown text."""

PROBES: Final = (
    "",
    " ",
    "  two spaces, a tab\tand a trailing one ",
    "def f(x):\n\tif x:\r\n        return  x\n\n\n",
    "naïve café, Ελληνικά, русский, עברית, हिन्दी",
    "漢字かな交じり文、한국어 — “quotes” … ",
    "🎉👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \ufeff\u200b\u2028",
    "".join(chr(code) for code in range(0x20)) + "\x7f\x80\x9f\xa0",
    "".join(chr(code) for code in range(0xA1, 0x180)),
    "1234567890 0x1F 3.14e-10 ==== !!!! <|x|> \\n",
    "\U0010ffff\ue000\uffff",
)
"""Texts that must survive a round trip: whitespace, scripts, emoji, control characters, the limits of Unicode."""


def special_roles(tokens: SpecialTokens) -> dict[str, str]:
    """Special tokens by their role in transformers, with defaults."""
    roles = {"eos_token": tokens.eos, "bos_token": tokens.bos or tokens.eos, "pad_token": tokens.pad or tokens.eos}
    others = {"unk": tokens.unk, "mask": tokens.mask, "cls": tokens.cls, "sep": tokens.sep}
    return roles | {f"{role}_token": text for role, text in others.items() if text}


def extra_tokens(tokens: SpecialTokens) -> list[str]:
    """Special tokens without a role."""
    return [*(SENTINEL.format(n) for n in range(tokens.sentinels or 0)), *tokens.extra]


def special_tokens(tokens: SpecialTokens) -> list[str]:
    """All special tokens without repeats; the index of each is its id."""
    return list(dict.fromkeys([*special_roles(tokens).values(), *extra_tokens(tokens)]))


def check_vocab_size(spec: TokenizerBuildSpec) -> None:
    """Checks that the vocabulary can hold the bytes and the special tokens.

    Raises:
        SpecError: it is too small.
    """
    least = len(ALPHABET) + len(special_tokens(spec.special_tokens))
    if spec.vocab_size < least:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.vocabSize: {spec.vocab_size} cannot hold the 256 bytes and the special tokens; set {least} or more",
        )


def untrained(blocks: TokenizerBlocks, unknown: str | None) -> Tokenizer:
    """A tokenizer of this design, without a vocabulary.

    Raises:
        SpecError: the last pre-tokenizer is not ByteLevel, one of them loses text, or a pattern is invalid.
    """
    if blocks.pre_tokenizers[-1].type != "ByteLevel":
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.build.preTokenizers: the last one is {blocks.pre_tokenizers[-1].type}; it must be ByteLevel, "
            "so that every text can be encoded: add {type: ByteLevel, useRegex: false}",
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
        # the library raises a bare Exception for an invalid expression
        raise SpecError(
            Reason.INVALID_SPEC, f"{where}: {item.pattern!r} is not a valid regular expression: {error}"
        ) from error


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer works on bytes, so that every text must survive a round trip."""
    return isinstance(tokenizer.decoder, decoders.ByteLevel)


def normalized(tokenizer: Tokenizer, text: str) -> str:
    """The text after the tokenizer's normalizer."""
    return tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text


def check_lossless(tokenizer: Tokenizer, field: str) -> None:
    """Checks before training that the pre-tokenizers of a byte-level design neither drop nor add text.

    Raises:
        SpecError: they do.
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
                f"{field}: the design is lossy: {text!r} decodes to {back!r}; remove blocks that drop whitespace "
                "(Whitespace, WhitespaceSplit, behavior removed), add a prefix space, or encode bytes twice",
            )


def trained(tokenizer: Tokenizer, spec: TokenizerBuildSpec, batches: Iterable[Sequence[str]]) -> Tokenizer:
    """Trains the vocabulary of a design on texts."""
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        min_frequency=spec.min_frequency,
        special_tokens=special_tokens(spec.special_tokens),
        initial_alphabet=list(ALPHABET),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(batches), trainer=trainer)
    if spec.special_tokens.cls and spec.special_tokens.sep:
        _add_template(tokenizer, spec.special_tokens.cls, spec.special_tokens.sep)
    return tokenizer


def _add_template(tokenizer: Tokenizer, cls: str, sep: str) -> None:
    """Adds the template that puts `cls` and `sep` around texts and pairs of texts, as encoders expect."""
    template = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in (cls, sep)],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
