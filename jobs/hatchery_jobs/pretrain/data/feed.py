"""What the loop reads from a token store: rows or pairs by their position in the run."""

from collections.abc import Sequence
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data.sampler import Mixture
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.data.types import Rows, Tokens
from hatchery_jobs.runtime import SpecError


class StoreFeed:
    """Rows or pairs of a store, shuffled over all of it; reading any position costs the same."""

    def __init__(
        self, store: TokenStore, seed: int, weights: Sequence[float] | None = None, *, positions: bool = False
    ) -> None:
        """A feed of the rows of a store.

        Args:
            store: the tokens.
            seed: the order is a pure function of it.
            weights: one for each corpus; None: by size.
            positions: whether documents are told apart.
        """
        self.store: Final = store
        self.order: Final = Mixture(seed, store.counts("train"), weights)
        self._positions = positions

    @property
    def validation_rows(self) -> int:
        """Rows (pairs, in a store of them) of the validation split."""
        return self.store.sequences("validation")

    def begin(self, first: int, count: int) -> None:
        """Nothing to do: every worker reads for itself."""

    def training(self, first: int, count: int) -> Rows:
        """The rows at `count` positions from `first` on."""
        return self.store.rows("train", self.order(range(first, first + count)), positions=self._positions)

    def validation(self, first: int, count: int) -> Rows:
        """Rows of the validation split by number."""
        return self.store.rows("validation", range(first, first + count), positions=self._positions)

    def pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """Comment and code at `count` positions from `first` on, of a store of pairs."""
        return self.store.pairs("train", self.order(range(first, first + count)))

    def validation_pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """Comment and code of the validation split by number, of a store of pairs."""
        return self.store.pairs("validation", range(first, first + count))

    def close(self) -> None:
        """Nothing to do: maps are freed with the store."""


def store_feed(spec: PretrainRunSpec, store: TokenStore) -> StoreFeed:
    """The feed a spec asks for."""
    return StoreFeed(store, spec.data.shuffle.seed, corpus_weights(spec), positions=spec.data.document_mask)


def corpus_weights(spec: PretrainRunSpec) -> list[float] | None:
    """Weights of the corpora; None: by size.

    Raises:
        SpecError: some have a weight and some have none.
    """
    given = [corpus.weight for corpus in spec.corpora if corpus.weight is not None]
    if given and len(given) < len(spec.corpora):
        without = next(n for n, corpus in enumerate(spec.corpora) if corpus.weight is None)
        raise SpecError(
            Reason.INVALID_SPEC,
            f"spec.corpora[{without}].weight is missing, other corpora have one; give every corpus a weight or none",
        )
    return given or None
