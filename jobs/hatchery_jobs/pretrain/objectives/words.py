"""Which tokens go on with the word of the token before."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders

from hatchery_jobs.pretrain.data.types import Tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary

WORD_PIECE_PREFIX: Final = "##"
"""How WordPiece marks a token inside a word."""

PART_OF_A_CHARACTER: Final = "\ufffd"
"""What decoding makes of bytes that are no character by themselves."""


@dataclass(frozen=True)
class Words:
    """The two ends of every token of a vocabulary, each (V,)."""

    goes_on: NDArray[np.bool_]
    """Whether it may be inside a word that an earlier token has begun."""
    leaves_open: NDArray[np.bool_]
    """Whether the word may go on after it."""

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Words":
        """The words of a vocabulary.

        WordPiece marks tokens inside a word. Byte-level and SentencePiece tokenizers keep the space before a word as
        its first character, so there a word goes on where letters, digits or underscores meet.
        """
        tokenizer = vocabulary.tokenizer
        texts = [tokenizer.id_to_token(n) or "" for n in range(vocabulary.size)]
        if isinstance(tokenizer.decoder, decoders.WordPiece):
            goes_on, leaves_open = [text.startswith(WORD_PIECE_PREFIX) for text in texts], [True] * len(texts)
        else:
            texts = _decoded(tokenizer, texts)
            goes_on, leaves_open = [_in_word(text[:1]) for text in texts], [_in_word(text[-1:]) for text in texts]
        words = cls(np.array(goes_on, dtype=np.bool_), np.array(leaves_open, dtype=np.bool_))
        special = sorted(vocabulary.special.every)
        words.goes_on[special] = words.leaves_open[special] = False
        return words

    def begins(self, tokens: Tokens) -> NDArray[np.bool_]:
        """(T,), whether each token of a row begins a word."""
        inside = self.goes_on[tokens]
        inside[1:] &= self.leaves_open[tokens[:-1]]
        inside[:1] = False
        return ~inside


def _decoded(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """Texts of tokens; byte-level ones are written with a character for each byte."""
    if not isinstance(tokenizer.decoder, decoders.ByteLevel):
        return texts
    return [tokenizer.decoder.decode([text]) for text in texts]


def _in_word(character: str) -> bool:
    return character.isalnum() or character in ("_", PART_OF_A_CHARACTER)
