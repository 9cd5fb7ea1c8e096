"""What card and report say alike, made of spec, index, result and loss curve."""

from collections.abc import Mapping, Sequence
from typing import Final

from hatchery_api.format import counted, significant
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec, TrainingCorpus
from hatchery_jobs.pretrain.data.token_store import TokenIndex

MEASURED_ROWS: Final = 10
"""Rows of the table of measurements; the whole curve is a file beside it."""

DIGEST_CHARS: Final = 12
"""Characters of a digest that tell corpora apart."""

CurveLines = Sequence[Mapping[str, float]]
"""Lines of the loss curve."""

OBJECTIVES: Final = {"causal": "causal", "masked": "masked", "seq2seq": "sequence-to-sequence"}
"""Words for the objectives."""

FAMILIES: Final = {"gpt2": "GPT-2", "llama": "Llama", "bert": "BERT", "roberta": "RoBERTa", "t5": "T5"}
"""Names of the families as their authors write them."""


def task(spec: PretrainRunSpec) -> str:
    """What the model learns, in words."""
    objective = spec.objective
    if objective.type == "masked":
        pairs = objective.masked is not None and objective.masked.next_sentence
        return "to restore hidden tokens" + (" and to tell whether two segments follow each other" if pairs else "")
    if objective.type == "seq2seq":
        tasks = {
            "spanCorruption": "to restore spans of text that are left out",
            "commentToCode": "to write the code that a comment describes",
            "codeToComment": "to write the comment that describes code",
        }
        return tasks[objective.seq2seq.task if objective.seq2seq else "spanCorruption"]
    return "to predict the next token"


def numbers(spec: PretrainRunSpec, index: TokenIndex | None, result: PretrainResult) -> dict[str, str]:
    """The numbers of a run that are the same in every equal run, by name."""
    rows = {"Parameters": f"{result.parameters or 0:,}"}
    if index is not None:
        rows["Vocabulary"] = f"{index.vocab_size:,} tokens"
    rows["Sequence"] = f"{spec.data.sequence_length:,} tokens"
    rows["Trained on"] = f"{result.tokens or 0:,} tokens in {result.step or 0:,} updates"
    if index is not None and index.splits["train"].tokens:
        rows["Epochs"] = f"{(result.tokens or 0) / index.splits['train'].tokens:.2f}"
    rows |= _quality(result)
    if result.skipped or result.rollbacks:
        rows["Left out by the guard"] = counted(result.skipped or 0, "batch", "batches")
        rows["Returns to a checkpoint"] = f"{result.rollbacks or 0}"
    return rows


def _quality(result: PretrainResult) -> dict[str, str]:
    rows: dict[str, str] = {}
    if result.loss is not None and result.loss.eval is not None:
        rows["Validation loss"] = significant(result.loss.eval) + _before(result.loss.initial)
    if result.perplexity is not None:
        rows["Validation perplexity"] = significant(result.perplexity) + _before(result.initial_perplexity)
    if result.bits_per_byte is not None:
        rows["Bits per byte"] = significant(result.bits_per_byte)
    return rows


def _before(value: float | None) -> str:
    return "" if value is None else f" (before training {significant(value)})"


def measurements(curve: CurveLines) -> list[tuple[str, str, str, str]]:
    """Update, training loss, validation loss and bits per byte: at most `MEASURED_ROWS` evenly chosen measurements."""
    train = {line["step"]: line["loss"] for line in curve if "loss" in line}
    measured = [line for line in curve if "eval_loss" in line]
    if len(measured) > MEASURED_ROWS:
        last = len(measured) - 1
        measured = [measured[last * n // (MEASURED_ROWS - 1)] for n in range(MEASURED_ROWS)]
    return [
        (
            f"{line['step']:,}",
            _number(train.get(line["step"])),
            _number(line["eval_loss"]),
            _number(line.get("bits_per_byte")),
        )
        for line in measured
    ]


def _number(value: float | None) -> str:
    return "" if value is None else significant(value)


def corpora(spec: PretrainRunSpec, index: TokenIndex | None) -> list[tuple[str, str, str, str]]:
    """Name, share, documents and digest of each corpus; what only an encoded corpus has is empty for others."""
    weights = [corpus.weight for corpus in spec.corpora]
    total = sum(weight or 0.0 for weight in weights)
    shares = [f"{weight / total:.1%}" if weight is not None else "by size" for weight in weights]
    if index is None:
        return [(corpus_name(c), share, "", "") for c, share in zip(spec.corpora, shares, strict=True)]
    known = zip(index.corpora, shares, strict=False)
    return [(c.name, share, f"{c.documents:,}", c.digest[:DIGEST_CHARS]) for c, share in known]


def corpus_name(corpus: TrainingCorpus) -> str:
    """What a corpus is called by the spec."""
    if corpus.corpus_ref is not None:
        return corpus.corpus_ref.name
    if corpus.hub is not None:
        return corpus.hub.dataset
    return str(corpus.files.urls[0]) if corpus.files else ""
