"""What card and report have in common: the data they are made from, and its numbers and tables as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from hatchery_api.contract import JobInput
from hatchery_api.format import counted, significant
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec, TrainingCorpus
from hatchery_jobs.pretrain.data import TokenIndex
from hatchery_jobs.pretrain.record import EventLine, Sample

REPORT: Final = "report.html"
"""Name of the report in the model's folder, and of the one with times in the run's record."""

CURVE_PICTURE: Final = "loss.svg"
"""Name of the picture of the loss curve on the card."""

MAX_MEASUREMENTS: Final = 10
"""Rows of the table of measurements; the whole curve is a file beside it."""

DIGEST_CHARS: Final = 12
"""Characters shown of a digest."""

CurveLines = Sequence[Mapping[str, float]]
"""Lines of the loss curve."""

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class ReportData:
    """What card and report are made from."""

    job: JobInput[PretrainRunSpec]
    """The run."""
    index: TokenIndex | None
    """Its tokens; None for text that was not encoded before."""
    result: PretrainResult
    """Its numbers; for the artifact, without those that differ between equal runs."""
    curve: CurveLines
    """Losses by update."""
    samples: Sequence[Sample] = ()
    """Texts the model generated."""
    lines: Sequence[EventLine] = ()
    """The timeline; empty for the artifact."""

    @property
    def spec(self) -> PretrainRunSpec:
        """The run's spec."""
        return self.job.spec

    def points(self, name: str) -> list[tuple[float, float]]:
        """One number of the curve by update."""
        return [(line["step"], line[name]) for line in self.curve if name in line]

    def numbers(self) -> dict[str, str]:
        """The numbers that are the same in every equal run, by name."""
        spec, index, result = self.spec, self.index, self.result
        rows = {"Parameters": f"{result.parameters or 0:,}"}
        if index is not None:
            rows["Vocabulary"] = f"{index.vocab_size:,} tokens"
        rows["Sequence"] = f"{spec.data.sequence_length:,} tokens"
        rows["Trained on"] = f"{result.tokens or 0:,} tokens in {result.step or 0:,} updates"
        if index is not None and index.splits["train"].tokens:
            rows["Epochs"] = significant((result.tokens or 0) / index.splits["train"].tokens)
        if result.loss is not None and result.loss.eval is not None:
            rows["Validation loss"] = significant(result.loss.eval) + _before(result.loss.initial)
        if result.perplexity is not None:
            rows["Validation perplexity"] = significant(result.perplexity) + _before(result.initial_perplexity)
        if result.bits_per_byte is not None:
            rows["Bits per byte"] = significant(result.bits_per_byte)
        if result.skipped or result.rollbacks:
            rows["Skipped by the guard"] = counted(result.skipped or 0, "batch", "batches")
            rows["Rollbacks"] = f"{result.rollbacks or 0}"
        return rows

    def measurements(self) -> list[tuple[str, str, str, str]]:
        """Update, training loss, validation loss and bits per byte of evenly spaced measurements."""
        train = {line["step"]: line["loss"] for line in self.curve if "loss" in line}
        measured = evenly_spaced([line for line in self.curve if "eval_loss" in line], MAX_MEASUREMENTS)
        return [
            (
                f"{line['step']:,}",
                _cell(train.get(line["step"])),
                _cell(line["eval_loss"]),
                _cell(line.get("bits_per_byte")),
            )
            for line in measured
        ]

    def corpora(self) -> list[tuple[str, str, str, str]]:
        """Name, share of sequences, documents and digest of each corpus; the last two only of an encoded corpus."""
        weights = [corpus.weight for corpus in self.spec.corpora]
        total = sum(weight or 0.0 for weight in weights)
        shares = [f"{weight / total:.1%}" if weight is not None else "by size" for weight in weights]
        if self.index is None:
            return [(_name(c), share, "", "") for c, share in zip(self.spec.corpora, shares, strict=True)]
        encoded = zip(self.index.corpora, shares, strict=False)
        return [(c.name, share, f"{c.documents:,}", c.digest[:DIGEST_CHARS]) for c, share in encoded]


def _cell(value: float | None) -> str:
    return "" if value is None else significant(value)


def _before(value: float | None) -> str:
    return "" if value is None else f" (before training {significant(value)})"


def _name(corpus: TrainingCorpus) -> str:
    if corpus.corpus_ref is not None:
        return corpus.corpus_ref.name
    if corpus.hub is not None:
        return corpus.hub.dataset
    return str(corpus.files.urls[0]) if corpus.files else ""


def evenly_spaced(items: Sequence[ItemT], most: int) -> Sequence[ItemT]:
    """At most so many items, at equal distances, with the first and the last."""
    if len(items) <= most:
        return items
    last = len(items) - 1
    return [items[last * n // (most - 1)] for n in range(most)]
