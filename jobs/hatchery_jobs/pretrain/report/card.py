"""The model card: made of spec, index, loss curve and samples, with nothing in it that differs between equal runs."""

from collections.abc import Sequence
from typing import Any, Final

import yaml

from hatchery_api.format import counted
from hatchery_api.resources.pretrain import PretrainResult, PretrainRunSpec
from hatchery_jobs.pretrain.data.token_store import TokenIndex
from hatchery_jobs.pretrain.record.curve import CURVE
from hatchery_jobs.pretrain.report.data import FAMILIES, OBJECTIVES, CurveLines, measurements, numbers, task
from hatchery_jobs.pretrain.report.html import CURVE_PICTURE, REPORT, ReportData
from hatchery_jobs.pretrain.training.generate import SAMPLES, Sample

SAMPLE_CHARS: Final = 800
"""Characters shown of a text; the whole one is in the file of samples."""

TASKS: Final = {
    "causal": ("text-generation", "AutoModelForCausalLM", "Causal language modelling"),
    "masked": ("fill-mask", "AutoModelForMaskedLM", "Masked language modelling"),
    "seq2seq": ("text2text-generation", "AutoModelForSeq2SeqLM", "Sequence-to-sequence language modelling"),
}
"""For each objective: the Hub's name of the task, the class that loads the model, and what it is called."""


def model_card(story: ReportData) -> str:
    """README.md of the model's folder and of its repository on the Hub."""
    spec, index, result = story.job.spec, story.index, story.result
    metadata = yaml.safe_dump(_metadata(spec, result), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{metadata}---",
        f"# {story.job.name}",
        spec.card.description or _description(spec, result),
        _table(("", ""), numbers(spec, index, result).items()),
        _use(spec),
        _training(spec, result),
        _data(story),
        _evaluation(spec, story.curve),
        _samples(spec, story.samples),
        _limits(index),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(spec: PretrainRunSpec, result: PretrainResult) -> dict[str, Any]:
    pipeline, _, name = TASKS[spec.objective.type]
    metadata: dict[str, Any] = {
        "license": spec.card.license,
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "tags": ["hatchery", spec.model.architecture],
    }
    if spec.card.languages:
        metadata["language"] = list(spec.card.languages)
    if result.perplexity is not None:
        metrics = [{"type": "perplexity", "value": round(result.perplexity, 4), "name": "Validation perplexity"}]
        dataset = {"type": "text", "name": "Validation split of the training corpora"}
        outcome = {"task": {"type": pipeline, "name": name}, "dataset": dataset, "metrics": metrics}
        metadata["model-index"] = [{"name": "model", "results": [outcome]}]
    return metadata


def _description(spec: PretrainRunSpec, result: PretrainResult) -> str:
    return (
        f"A {OBJECTIVES[spec.objective.type]} language model of {result.parameters or 0:,} parameters, "
        f"trained {_origin(spec)} {task(spec)}."
    )


def _origin(spec: PretrainRunSpec) -> str:
    source = spec.model.from_
    if source is None:
        return "from scratch"
    if source.hub is not None:
        return f"on from {source.hub.repo} ({source.hub.revision})"
    return f"on from {source.pretrain_ref.name if source.pretrain_ref else ''}"


def _table(heading: Sequence[str], rows: Any) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (heading, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heading), *lines[1:]])


def _use(spec: PretrainRunSpec) -> str:
    repo = spec.hub.repo if spec.hub else "PATH"
    loader = TASKS[spec.objective.type][1]
    return (
        f"## Use\n\n```python\nfrom transformers import {loader}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f'model = {loader}.from_pretrained("{repo}")\n```'
    )


def _training(spec: PretrainRunSpec, result: PretrainResult) -> str:
    schedule, optimizer, batch = spec.schedule, spec.optimizer, spec.batch
    started = f"initial weights from seed {spec.model.init_seed}" if spec.model.from_ is None else _origin(spec)
    course = (
        f"then constant in {schedule.steps:,} updates"
        if schedule.type == "constant"
        else f"then {schedule.type} to {schedule.min_lr:g} in {schedule.steps:,} updates"
    )
    return (
        "## Training\n\n"
        f"{FAMILIES[spec.model.architecture]} family, {spec.model.size} preset, {started}, trained {task(spec)}. "
        f"AdamW (betas {optimizer.beta1} and {optimizer.beta2}, weight decay {optimizer.weight_decay} on matrices "
        f"only), gradient clipped at {optimizer.clip_norm}. Learning rate: {schedule.warmup_steps:,} updates of "
        f"warm-up to {schedule.peak_lr:g}, {course}. "
        f"{batch.sequences} sequences ({result.tokens_per_step or 0:,} tokens) in an update, {spec.precision}, "
        f"order from seed {spec.data.shuffle.seed}.{_interventions(result)}"
    )


def _interventions(result: PretrainResult) -> str:
    if not (result.skipped or result.rollbacks):
        return ""
    skipped = counted(result.skipped or 0, "batch", "batches")
    rollbacks = counted(result.rollbacks or 0, "return", "returns")
    return (
        f" Where the loss was no number or far above the others, the guard left out {skipped}, with {rollbacks} to an "
        "earlier checkpoint."
    )


def _data(story: ReportData) -> str:
    index = story.index
    tokenizer = story.job.input("tokenizer")
    rows = [(name, share, documents, digest and f"`{digest}`") for name, share, documents, digest in story.corpora]
    table = _table(("Corpus", "Share of sequences", "Documents", "Digest"), rows)
    sizes = ""
    if index is not None:
        sizes = "".join(
            f"{name.capitalize()}: {split.documents:,} documents, {split.text_bytes:,} bytes, {split.tokens:,} tokens. "
            for name, split in (("train", index.splits["train"]), ("validation", index.splits["validation"]))
        )
    return (
        f"## Data\n\n{table}\n\n{sizes}Tokenizer: {tokenizer.name} (`{tokenizer.digest[:12]}`). "
        "Which documents were dropped and why is the funnel in each corpus's own card."
    )


def _evaluation(spec: PretrainRunSpec, curve: CurveLines) -> str:
    unit = "hidden token" if spec.objective.type == "masked" else "token"
    table = _table(("Update", "Train", "Validation", "Bits per byte"), measurements(curve))
    return (
        f"## Evaluation\n\n![Loss by update]({CURVE_PICTURE})\n\n"
        f"Loss in nats per {unit}, on text that was not trained on; perplexity is its exponential. Every update is in "
        f"`{CURVE}`; curves, texts and configuration are in `{REPORT}`.\n\n{table}"
    )


def _samples(spec: PretrainRunSpec, samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    last = max(sample.step for sample in samples)
    between = "\n→ " if spec.objective.type == "seq2seq" else ""
    texts = (f"```text\n{_cut(s.prompt)}{between}{_cut(s.text)}\n```" for s in samples if s.step == last)
    return (
        f"## Samples\n\nWritten after {last:,} updates, not selected; those of earlier updates are in `{SAMPLES}`.\n\n"
        + "\n\n".join(texts)
    )


def _cut(text: str) -> str:
    """A text for a block of code, which three backticks of its own would end."""
    short = text if len(text) <= SAMPLE_CHARS else text[:SAMPLE_CHARS] + " …"
    return short.replace("```", "` ` `")


def _limits(index: TokenIndex | None) -> str:
    size = "texts" if index is None else f"{index.splits['train'].text_bytes:,} bytes of text"
    return (
        "## Intended use and limits\n\n"
        f"For research and for further training. The model repeats what its {size} contain, errors, licences and "
        "personal data included; its output is not checked for truth, safety or originality; review code it writes "
        "before running it."
    )
