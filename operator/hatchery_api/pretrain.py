"""PretrainRun: a language model trained from a configuration on a corpus."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Duration, Model, Record, Ref, Seed, cel
from hatchery_api.placement import Card, RunSpec

Steps = Annotated[int, Field(ge=1, le=100_000_000)]
"""A number of optimizer steps."""

Dropout = Annotated[float, Field(ge=0, lt=1)]
"""A dropout probability."""


_DIVISIBLE = (
    "!has(self.overrides.heads) || !has(self.overrides.hiddenSize)"
    " || self.overrides.hiddenSize % self.overrides.heads == 0"
)
_LONG_ENOUGH = (
    "!has(self.model.overrides.maxPositions) || self.data.sequenceLength <= self.model.overrides.maxPositions"
)


_PROCESSES = "(type(self.parallelism.processesPerNode) == int ? int(self.parallelism.processesPerNode) : 1)"


class Objective(Model):
    """What the model learns to predict."""

    type: Literal["causal"] = "causal"
    """`causal`: the next token."""


class TrainingCorpus(Model):
    """One corpus of the training data."""

    corpus_ref: Ref
    """A CorpusBuild; its train split is learnt, its validation split measured."""


class ModelOverrides(Model):
    """Sizes that replace those of the preset."""

    layers: Annotated[int, Field(ge=1, le=512)] | None = None
    """Transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=512)] | None = None
    """Attention heads; must divide hiddenSize."""
    hidden_size: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Width of the residual stream."""
    max_positions: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Longest sequence the model can see; default: data.sequenceLength."""
    dropout: Dropout | None = None
    """Dropout of embeddings, attention and residuals; 0 suits pretraining in less than one epoch."""


class PretrainModel(Model):
    """The model, from a configuration and not from weights."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                _DIVISIBLE,
                "overrides.heads must divide overrides.hiddenSize",
            )
        )
    )

    architecture: Literal["gpt2"] = "gpt2"
    """Family in the transformers library."""

    size: Literal["tiny", "small", "medium", "large", "xl"] = "small"
    """Preset: tiny (4 layers, 4 heads, 128 wide), small (12, 12, 768), medium (24, 16, 1024), large (36, 20, 1280),
    xl (48, 25, 1600)."""

    overrides: ModelOverrides = ModelOverrides()
    """Sizes that replace those of the preset."""

    init_seed: Seed = 1
    """Seed of the initial weights."""


class Shuffle(Model):
    """Order of the training sequences."""

    seed: Seed = 1
    """Seed; the order is a pure function of seed, epoch and position."""


class PretrainData(Model):
    """How documents become sequences."""

    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] = 1024
    """Tokens in a sequence."""

    packing: Literal["concat"] = "concat"
    """`concat`: documents are joined with the end-of-text token and cut; no padding."""

    shuffle: Shuffle = Shuffle()
    """Order of the sequences."""


class Schedule(Model):
    """Learning rate by optimizer step."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.warmupSteps < self.steps", "warmupSteps must be below steps"),
            ("self.minLr <= self.peakLr", "minLr must not be above peakLr"),
        )
    )

    steps: Steps
    """Optimizer steps of the whole run."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the rate rises linearly from 0 to peakLr."""

    type: Literal["cosine", "linear", "constant"] = "cosine"
    """Course after the warm-up, down to minLr (constant stays)."""

    peak_lr: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """Highest learning rate."""

    min_lr: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the last step."""


class Optimizer(Model):
    """AdamW; weight decay is applied to matrices only, never to biases and norms."""

    type: Literal["adamw"] = "adamw"
    """Optimizer."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Term that keeps the division finite."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Decoupled weight decay of matrices."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest global gradient norm."""


class Batch(Model):
    """How many sequences one optimizer step sees, whatever the number of workers."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.sequences % self.perDevice == 0", "perDevice must divide sequences (the global batch)")
        )
    )

    sequences: Annotated[int, Field(ge=1, le=1_048_576)] = 192
    """Sequences in one optimizer step over all workers; gradient accumulation is derived."""

    per_device: Annotated[int, Field(ge=1, le=65_536)] = 12
    """Sequences in one forward pass of one process."""


class Parallelism(Model):
    """Workers of the run; they may change while it runs, and change nothing about what is learnt."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods."""

    processes_per_node: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """Processes in a pod; auto: one for each GPU asked for, without GPUs one with a thread for each processor."""


class Checkpoint(Model):
    """When and how long state is kept."""

    every_steps: Steps = 1000
    """Optimizer steps between checkpoints; a termination signal makes one at once."""

    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Checkpoints kept."""

    grace_period: Duration = "120s"
    """Time a pod has to checkpoint after a termination signal."""


class PretrainEvaluate(Model):
    """Measurement on the validation split during the run; also before the first and after the last step."""

    every_steps: Steps = 1000
    """Optimizer steps between measurements."""

    batches: Annotated[int, Field(ge=-1)] = -1
    """Batches of `batch.sequences` at most; -1 for all."""


class PretrainRunSpec(RunSpec):
    """Trains a language model."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                _LONG_ENOUGH,
                "data.sequenceLength must not be above model.overrides.maxPositions",
            ),
            (
                f"self.parallelism.nodes * {_PROCESSES} <= self.batch.sequences / self.batch.perDevice",
                "parallelism.nodes times processesPerNode must not be above batch.sequences / batch.perDevice, since"
                " every worker needs a part of the global batch; lower them, or raise the batch of a new run",
            ),
        )
    )

    objective: Objective = Objective()
    """What is learnt."""

    corpora: Annotated[list[TrainingCorpus], Field(min_length=1, max_length=16)]
    """Training data, joined in this order before shuffling."""

    tokenizer_ref: Ref
    """The TokenizerBuild whose tokenizer is used."""

    model: PretrainModel = PretrainModel()
    """The model."""

    data: PretrainData = PretrainData()
    """How documents become sequences."""

    schedule: Schedule
    """Steps and learning rate."""

    optimizer: Optimizer = Optimizer()
    """Optimizer."""

    batch: Batch = Batch()
    """Global and per-process batch."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    parallelism: Parallelism = Parallelism()
    """Workers."""

    checkpoint: Checkpoint = Checkpoint()
    """Saved state."""

    evaluate: PretrainEvaluate = PretrainEvaluate()
    """Measurement during the run."""

    card: Card = Card()
    """Texts of the model card."""


class Loss(Record):
    """Cross-entropy in nats per token."""

    train: float | None = None
    """Of the last reported step."""
    eval: float | None = None
    """On the validation split, last measured."""
    initial: float | None = None
    """On the validation split, before the first step."""


class LastCheckpoint(Record):
    """The newest complete checkpoint."""

    step: int
    """Optimizer steps done."""
    time: str
    """When it was complete, RFC 3339."""


class PretrainResult(Record):
    """What a PretrainRun reports."""

    parameters: int | None = None
    """Trainable parameters."""
    tokens_per_step: int | None = None
    """Tokens in one optimizer step."""
    step: int | None = None
    """Optimizer steps done."""
    steps: int | None = None
    """Optimizer steps of the whole run."""
    tokens: int | None = None
    """Training tokens consumed."""
    loss: Loss | None = None
    """Cross-entropy."""
    perplexity: float | None = None
    """exp of the validation loss."""
    initial_perplexity: float | None = None
    """exp of the validation loss before the first step."""
    bits_per_byte: float | None = None
    """Validation loss in bits per byte of text: comparable between tokenizers."""
    tokens_per_second: float | None = None
    """Over all workers, without evaluation and checkpoints."""
    last_checkpoint: LastCheckpoint | None = None
    """The newest complete checkpoint."""
    resumed_from: Annotated[list[int], Field(max_length=64)] | None = None
    """Steps the run was resumed at."""
