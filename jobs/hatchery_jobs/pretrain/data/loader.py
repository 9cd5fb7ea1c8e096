"""Opens the data source of a run: map-style over a token store, or iterable-style over text that is still unencoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hatchery_api.conditions import Reason
from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.data.corpora import open_source_corpora, resolve_corpora, training_only
from hatchery_jobs.pretrain.data.sampler import Interleave, Mixture, derived_seed
from hatchery_jobs.pretrain.data.streaming import Broadcast, RowStream, ShuffledBlocks, StreamSource
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.data.types import Rows, Tokens
from hatchery_jobs.pretrain.data.vocabulary import Vocabulary
from hatchery_jobs.runtime import DataError, SpecError


def open_loader(
    job: JobInput[PretrainRunSpec],
    store: TokenStore,
    vocabulary: Vocabulary,
    *,
    broadcast: Broadcast,
    scratch: Path,
    milestones: Path | None,
) -> "StoreSource | StreamSource":
    """The data source for `spec.data.loading`.

    Args:
        job: the run.
        store: output of the encode stage; with `loading: streaming` it holds the validation split alone.
        vocabulary: the tokenizer.
        broadcast: collective that sends the lead's rows to all workers.
        scratch: local disk for copies of input artifacts.
        milestones: folder that outlives the attempt, for the lead's stream positions; None on the other workers.

    Raises:
        SpecError: some corpora have a weight and some have none.
        DataError: a streamed corpus has changed since the encode stage.
    """
    spec = job.spec
    seed, weights = spec.data.shuffle.seed, corpus_weights(spec)
    if spec.data.loading == "mmap":
        return StoreSource(store, seed, weights, positions=spec.data.document_mask)
    streams = None
    if milestones is not None:
        milestones.mkdir(exist_ok=True)
        streams = _open_streams(job, store, vocabulary, scratch, milestones)
    interleave = None if weights is None else Interleave(seed, weights)
    return StreamSource(store, streams, interleave, broadcast, positions=spec.data.document_mask)


def _open_streams(
    job: JobInput[PretrainRunSpec], store: TokenStore, vocabulary: Vocabulary, scratch: Path, milestones: Path
) -> list[ShuffledBlocks]:
    """One stream over all corpora, or one per corpus where they have weights."""
    spec, encoded = job.spec, store.index.corpora
    corpora = resolve_corpora(job, open_source_corpora(job, {n: c.revision for n, c in enumerate(encoded)}), scratch)
    for number, (corpus, before) in enumerate(zip(corpora, encoded, strict=True)):
        if corpus.digest != before.digest:
            raise DataError(
                Reason.UNREADABLE_INPUT,
                f"spec.corpora[{number}]: {corpus.name} has changed since the run began, and a run cannot switch to "
                "other text: restore the files or start a new run",
            )
    trained = [training_only(corpus) for corpus in corpora]
    groups = [trained] if corpus_weights(spec) is None else [[corpus] for corpus in trained]
    return [
        ShuffledBlocks(
            RowStream(group, vocabulary, spec.data.sequence_length, milestones / f"stream-{number}.jsonl"),
            derived_seed(spec.data.shuffle.seed, number),
            spec.data.shuffle.buffer_rows,
        )
        for number, group in enumerate(groups)
    ]


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


class StoreSource:
    """Rows or pairs of a store in shuffled order. Every position costs the same to read."""

    def __init__(
        self, store: TokenStore, seed: int, weights: Sequence[float] | None = None, *, positions: bool = False
    ) -> None:
        """A source over a store.

        Args:
            store: the tokens.
            seed: the order is a pure function of it.
            weights: one per corpus; None: by size.
            positions: whether rows carry each token's position in its document.
        """
        self.store: Final = store
        self.order: Final = Mixture(seed, store.counts("train"), weights)
        self._positions = positions

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split; its pairs in a store of pairs."""
        return self.store.sequences("validation")

    def begin(self, first: int, count: int) -> None:
        """No-op: every worker reads the store itself."""

    def training(self, first: int, count: int) -> Rows:
        """Rows at `count` positions, starting with `first`."""
        return self.store.rows("train", self.order(range(first, first + count)), positions=self._positions)

    def validation(self, first: int, count: int) -> Rows:
        """Rows of the validation split by number."""
        return self.store.rows("validation", range(first, first + count), positions=self._positions)

    def pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """Comment and code at `count` positions of a store of pairs."""
        return self.store.pairs("train", self.order(range(first, first + count)))

    def validation_pairs(self, first: int, count: int) -> list[tuple[Tokens, Tokens]]:
        """Comment and code of the validation split by number."""
        return self.store.pairs("validation", range(first, first + count))

    def close(self) -> None:
        """No-op: memory maps are freed with the store."""
