"""The model card. Equal runs get equal cards."""

from typing import Any, Final

from hatchery_api.format import counted
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.model import MODEL_FAMILIES
from hatchery_jobs.pretrain.objectives import objective_info
from hatchery_jobs.pretrain.record import CURVE, SAMPLES
from hatchery_jobs.pretrain.report.data import CURVE_PICTURE, REPORT, ReportData
from hatchery_jobs.reporting import fenced, markdown_page, markdown_table

SAMPLE_CHARS: Final = 800
"""Characters shown of a text; the file of samples has all of it."""


def model_card(report: ReportData) -> str:
    """README.md of the model's folder and of its repository on the Hub."""
    sections = [
        f"# {report.job.name}",
        report.spec.card.description or _description(report),
        markdown_table(("", ""), report.numbers().items()),
        _use(report.spec),
        _training(report),
        _data(report),
        _evaluation(report),
        _samples(report),
        _limits(report),
    ]
    return markdown_page(_metadata(report), sections)


def _metadata(report: ReportData) -> dict[str, Any]:
    spec, result, objective = report.spec, report.result, objective_info(report.spec)
    metadata: dict[str, Any] = {
        "license": spec.card.license,
        "library_name": "transformers",
        "pipeline_tag": objective.pipeline_tag,
        "tags": ["hatchery", spec.model.architecture],
    }
    if spec.card.languages:
        metadata["language"] = list(spec.card.languages)
    if result.perplexity is not None:
        metrics = [{"type": "perplexity", "value": round(result.perplexity, 4), "name": "Validation perplexity"}]
        dataset = {"type": "text", "name": "Validation split of the training corpora"}
        task = {"type": objective.pipeline_tag, "name": objective.title}
        outcome = {"task": task, "dataset": dataset, "metrics": metrics}
        metadata["model-index"] = [{"name": "model", "results": [outcome]}]
    return metadata


def _description(report: ReportData) -> str:
    objective = objective_info(report.spec)
    return (
        f"A {objective.adjective} language model of {report.result.parameters or 0:,} parameters, "
        f"trained {_origin(report.spec)} {objective.task(report.spec)}."
    )


def _origin(spec: PretrainRunSpec) -> str:
    source = spec.model.from_
    if source is None:
        return "from scratch"
    if source.hub is not None:
        return f"from {source.hub.repo} ({source.hub.revision})"
    return f"from {source.pretrain_ref.name if source.pretrain_ref else ''}"


def _use(spec: PretrainRunSpec) -> str:
    repo = spec.hub.repo if spec.hub else "PATH"
    loader = objective_info(spec).auto_class
    return (
        f"## Use\n\n```python\nfrom transformers import {loader}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f'model = {loader}.from_pretrained("{repo}")\n```'
    )


def _training(report: ReportData) -> str:
    spec = report.spec
    schedule, optimizer, batch = spec.schedule, spec.optimizer, spec.batch
    start = f"initial weights from seed {spec.model.init_seed}" if spec.model.from_ is None else _origin(spec)
    course = (
        f"then constant in {schedule.steps:,} updates"
        if schedule.type == "constant"
        else f"then {schedule.type} to {schedule.min_lr:g} in {schedule.steps:,} updates"
    )
    return (
        "## Training\n\n"
        f"{MODEL_FAMILIES[spec.model.architecture].title} family, {spec.model.size} preset, {start}, trained "
        f"{objective_info(spec).task(spec)}. "
        f"AdamW (betas {optimizer.beta1} and {optimizer.beta2}, weight decay {optimizer.weight_decay} on matrices "
        f"only), gradient clipped at {optimizer.clip_norm}. Learning rate: {schedule.warmup_steps:,} updates of "
        f"warm-up to {schedule.peak_lr:g}, {course}. "
        f"{batch.sequences} sequences ({report.result.tokens_per_step or 0:,} tokens) per update, {spec.precision}, "
        f"order from seed {spec.data.shuffle.seed}.{_interventions(report)}"
    )


def _interventions(report: ReportData) -> str:
    skipped, rollbacks = report.result.skipped or 0, report.result.rollbacks or 0
    if not (skipped or rollbacks):
        return ""
    return (
        " Where the loss was NaN, infinite or a spike, the loss guard skipped "
        f"{counted(skipped, 'batch', 'batches')}, with {counted(rollbacks, 'rollback', 'rollbacks')} to an earlier "
        "checkpoint."
    )


def _data(report: ReportData) -> str:
    index, tokenizer = report.index, report.job.input("tokenizer")
    rows = [(name, share, documents, digest and f"`{digest}`") for name, share, documents, digest in report.corpora()]
    table = markdown_table(("Corpus", "Share of sequences", "Documents", "Digest"), rows)
    sizes = ""
    if index is not None:
        sizes = "".join(
            f"{name.capitalize()}: {split.documents:,} documents, {split.text_bytes:,} bytes, {split.tokens:,} tokens. "
            for name, split in (("train", index.splits["train"]), ("validation", index.splits["validation"]))
        )
    return (
        f"## Data\n\n{table}\n\n{sizes}Tokenizer: {tokenizer.name} (`{tokenizer.digest[:12]}`). "
        "The funnel in each corpus's own card counts the dropped documents by reason."
    )


def _evaluation(report: ReportData) -> str:
    table = markdown_table(("Update", "Train", "Validation", "Bits per byte"), report.measurements())
    return (
        f"## Evaluation\n\n![Loss by update]({CURVE_PICTURE})\n\n"
        f"Loss in nats per {objective_info(report.spec).unit}, on held-out text; perplexity is its exponential. Every "
        f"update is in `{CURVE}`; curves, samples and configuration are in `{REPORT}`.\n\n{table}"
    )


def _samples(report: ReportData) -> str:
    samples = report.samples
    if not samples:
        return ""
    last = max(sample.step for sample in samples)
    between = "\n→ " if objective_info(report.spec).writes_own_text else ""
    texts = (fenced(_cut(s.prompt) + between + _cut(s.text)) for s in samples if s.step == last)
    return (
        f"## Samples\n\nGenerated after {last:,} updates, not selected; those of earlier updates are in "
        f"`{SAMPLES}`.\n\n" + "\n\n".join(texts)
    )


def _cut(text: str) -> str:
    return text if len(text) <= SAMPLE_CHARS else text[:SAMPLE_CHARS] + " …"


def _limits(report: ReportData) -> str:
    index = report.index
    size = "texts" if index is None else f"{index.splits['train'].text_bytes:,} bytes of text"
    return (
        "## Intended use and limits\n\n"
        f"For research and further training. The model reproduces what its {size} contain, including errors, licences "
        "and personal data. Its output is not checked for truth, safety or originality; review generated code before "
        "running it."
    )
