"""The model card: made of spec, tokens' index and loss curve, with nothing in it that differs between equal runs."""

from collections.abc import Sequence
from typing import Any, Final

import yaml

from hatchery_api.contract import JobInput
from hatchery_api.pretrain import PretrainRunSpec
from hatchery_api.pretrain_result import PretrainResult
from hatchery_jobs.pretrain.curve import CURVE
from hatchery_jobs.pretrain.index import TokenIndex

CURVE_ROWS: Final = 10
"""Rows of the loss table; the whole curve is a file beside the card."""


def model_card(
    job: JobInput[PretrainRunSpec], index: TokenIndex, result: PretrainResult, curve: Sequence[dict[str, float]]
) -> str:
    """README.md of the model's folder and of its repository on the Hub."""
    metadata = yaml.safe_dump(_metadata(job.spec, result), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{metadata}---",
        f"# {job.name}",
        job.spec.card.description or f"A causal language model trained from scratch: {result.parameters:,} parameters.",
        _numbers(job.spec, index, result),
        _use(job.spec),
        _training(job.spec, result),
        _data(job, index),
        f"## Loss\n\nIn nats per token; every update is in `{CURVE}`.\n\n{loss_table(curve)}",
        _limits(index),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(spec: PretrainRunSpec, result: PretrainResult) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "license": spec.card.license,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["hatchery", spec.model.architecture],
    }
    if spec.card.languages:
        metadata["language"] = list(spec.card.languages)
    if result.perplexity is not None:
        metrics = [{"type": "perplexity", "value": round(result.perplexity, 4), "name": "Validation perplexity"}]
        task = {"type": "text-generation", "name": "Causal language modelling"}
        dataset = {"type": "text", "name": "Validation split of the training corpora"}
        metadata["model-index"] = [
            {"name": "model", "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
        ]
    return metadata


def _numbers(spec: PretrainRunSpec, index: TokenIndex, result: PretrainResult) -> str:
    loss = result.loss
    rows = {
        "Parameters": f"{result.parameters:,}",
        "Vocabulary": f"{index.vocab_size:,} tokens",
        "Sequence": f"{spec.data.sequence_length:,} tokens",
        "Trained on": f"{result.tokens:,} tokens in {result.step:,} updates",
        "Epochs": f"{(result.tokens or 0) / index.splits['train'].tokens:.2f}",
    }
    if loss and loss.eval is not None and result.perplexity is not None and result.bits_per_byte is not None:
        rows["Validation loss"] = f"{loss.eval:.4f} (before training {loss.initial or 0:.4f})"
        rows["Validation perplexity"] = (
            f"{result.perplexity:.2f} (before training {result.initial_perplexity or 0:.2f})"
        )
        rows["Bits per byte"] = f"{result.bits_per_byte:.4f}"
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _use(spec: PretrainRunSpec) -> str:
    repo = spec.hub.repo if spec.hub else "PATH"
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{repo}")\n```'
    )


def _training(spec: PretrainRunSpec, result: PretrainResult) -> str:
    schedule, optimizer, batch = spec.schedule, spec.optimizer, spec.batch
    return (
        "## Training\n\n"
        f"GPT-2 family, {spec.model.size} preset, initial weights from seed {spec.model.init_seed}. "
        f"AdamW (betas {optimizer.beta1} and {optimizer.beta2}, weight decay {optimizer.weight_decay} on matrices "
        f"only), gradient clipped at {optimizer.clip_norm}. Learning rate: {schedule.warmup_steps:,} updates of "
        f"warm-up to {schedule.peak_lr:g}, then {schedule.type} to {schedule.min_lr:g} in {schedule.steps:,} updates. "
        f"{batch.sequences} sequences ({result.tokens_per_step:,} tokens) in an update, {spec.precision}, "
        f"order from seed {spec.data.shuffle.seed}."
    )


def _data(job: JobInput[PretrainRunSpec], index: TokenIndex) -> str:
    rows = "\n".join(f"| {c.name} | {c.documents:,} | `{c.digest[:12]}` |" for c in index.corpora)
    tokenizer = job.input("tokenizer")
    train, validation = index.splits["train"], index.splits["validation"]
    return (
        f"## Data\n\n| Corpus | Documents | Digest |\n|---|---|---|\n{rows}\n\n"
        f"Train: {train.documents:,} documents, {train.text_bytes:,} bytes, {train.tokens:,} tokens. "
        f"Validation: {validation.documents:,} documents, {validation.text_bytes:,} bytes, "
        f"{validation.tokens:,} tokens. "
        f"Tokenizer: {tokenizer.name} (`{tokenizer.digest[:12]}`). "
        "Which documents were dropped and why is the funnel in each corpus's own card."
    )


def loss_table(curve: Sequence[dict[str, float]]) -> str:
    """Measurements on the validation split, and the training loss there, at most `CURVE_ROWS` evenly chosen ones."""
    train = {line["step"]: line["loss"] for line in curve if "loss" in line}
    measured = [line for line in curve if "eval_loss" in line]
    if len(measured) > CURVE_ROWS:
        last = len(measured) - 1
        measured = [measured[last * n // (CURVE_ROWS - 1)] for n in range(CURVE_ROWS)]
    rows = [
        f"| {line['step']:,} | {_number(train.get(line['step']))} | {_number(line['eval_loss'])} "
        f"| {_number(line['bits_per_byte'])} |"
        for line in measured
    ]
    return "| Update | Train | Validation | Bits per byte |\n|---|---|---|---|\n" + "\n".join(rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _limits(index: TokenIndex) -> str:
    return (
        "## Intended use and limits\n\n"
        "For research and for further training. The model repeats what its "
        f"{index.splits['train'].text_bytes:,} bytes of text contain, errors, licences and personal data included; "
        "its output is not checked for truth, safety or originality; review code it writes before running it."
    )
