"""The spec of a PretrainRun, except for its model and objective."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from hatchery_api.base import Duration, Model, Ref, Seed, Url, cel, exactly_one, spelled_out
from hatchery_api.placement import Card, RunSpec, SecretKey
from hatchery_api.resources.corpus import Files, HubDataset
from hatchery_api.resources.pretrain.model import HubRevisionSource, PretrainModel
from hatchery_api.resources.pretrain.objective import FAMILY_RULE, ObjectiveSpec

Steps = Annotated[int, Field(ge=1, le=100_000_000)]
"""A number of optimizer steps."""

_LONG_ENOUGH = (
    "!has(self.model.overrides.maxPositions) || self.data.sequenceLength <= self.model.overrides.maxPositions"
)


_PROCESSES = "(type(self.parallelism.processesPerNode) == int ? int(self.parallelism.processesPerNode) : 1)"


class TrainingDataset(HubDataset):
    """A dataset on the Hub."""

    model_config = ConfigDict(json_schema_extra=spelled_out("dataset", "split", "revision"))


class TrainingFiles(Files):
    """Files of documents."""

    model_config = ConfigDict(json_schema_extra=spelled_out("urls", "format"))


class TrainingCorpus(Model):
    """A corpus of the training data."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("corpusRef", "hub", "files")))

    corpus_ref: Ref | None = None
    """A CorpusBuild: train split for training, validation split for evaluation."""

    hub: TrainingDataset | None = None
    """A dataset on the Hub, unfiltered; fields as in a CorpusBuild."""

    files: TrainingFiles | None = None
    """Files, unfiltered; fields as in a CorpusBuild."""

    weight: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Weight in the mixture of training sequences, relative to the other corpora; absent for all: by size."""


class Encode(Model):
    """The stage that encodes text into tokens, once."""

    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods that share the files of the corpora."""


class Shuffle(Model):
    """Order of the training sequences."""

    seed: Seed = 1
    """Seed; the order depends only on seed, epoch and position."""

    buffer_rows: Annotated[int, Field(ge=1, le=1_048_576)] = 1000
    """Size of the shuffle buffer of `streaming`, in sequences; `mmap` shuffles all."""


class PretrainData(Model):
    """From documents to sequences."""

    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] = 1024
    """Tokens per sequence, those added by the objective included; for seq2seq the longest input and target."""

    packing: Literal["concat", "bestFit"] = "concat"
    """`concat`: join documents with the end-of-text token and cut, without padding. `bestFit`: never cut a document
    that fits into a sequence; pad the rest."""

    document_mask: bool = False
    """No attention across documents of a sequence; for causal."""

    dynamic_padding: bool = True
    """Pad seq2seq pairs to the longest text of a forward pass instead of sequenceLength."""

    pad_to_multiple_of: Annotated[int, Field(ge=1, le=1024)] = 8
    """Padded lengths of seq2seq are multiples of this, up to sequenceLength."""

    loading: Literal["mmap", "streaming"] = "mmap"
    """`mmap`: encode once and read tokens from memory-mapped files. `streaming`: read and encode text during training,
    without disk."""

    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """Share of the documents of `hub` and `files` held out for validation."""

    shuffle: Shuffle = Shuffle()
    """Order of the sequences."""


class ScheduleSpec(Model):
    """Learning rate by optimizer step."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.warmupSteps < self.steps", "warmupSteps must be below steps"),
            ("self.minLr <= self.peakLr", "minLr must not exceed peakLr"),
            ("!has(self.decaySteps) || self.type == 'wsd'", "decaySteps requires type wsd"),
            (
                "!has(self.decaySteps) || self.warmupSteps + self.decaySteps <= self.steps",
                "warmupSteps + decaySteps must not exceed steps",
            ),
        )
    )

    steps: Steps
    """Optimizer steps of the whole run."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up; the last has peakLr."""

    type: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Decay after the warm-up, down to minLr; constant stays at peakLr, wsd until decaySteps before the end."""

    decay_steps: Annotated[int, Field(ge=1)] | None = None
    """Final steps of wsd, with linear decay to minLr; default: a tenth of steps."""

    peak_lr: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """Peak learning rate."""

    min_lr: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate of the last step; not for constant."""


class Optimizer(Model):
    """AdamW; weight decay applies to matrices only, never to biases and norms."""

    type: Literal["adamw"] = "adamw"
    """Optimizer."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator for stability."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Decoupled weight decay."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this global norm."""


class BatchSpec(Model):
    """Batch sizes; the global one does not depend on the number of workers."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.sequences % self.perDevice == 0", "perDevice must divide sequences (the global batch)")
        )
    )

    sequences: Annotated[int, Field(ge=1, le=1_048_576)] = 192
    """Global batch: sequences per optimizer step; gradient accumulation is derived."""

    per_device: Annotated[int, Field(ge=1, le=65_536)] = 12
    """Micro-batch: sequences per forward pass of a process; halved automatically when out of memory."""


class Parallelism(Model):
    """Workers; may change while the run trains, without effect on what it learns."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods."""

    processes_per_node: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """Processes per pod; auto: one per requested GPU, without GPUs one with a thread per CPU."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every process holds the whole model; `fsdp`: a shard of it (FSDP2)."""


class Checkpoint(Model):
    """Checkpoints: how often, and how many to keep."""

    every_steps: Steps = 1000
    """Optimizer steps between checkpoints; a termination signal triggers one immediately."""

    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Newest checkpoints to keep; the volume needs room for two more."""

    asynchronous: Annotated[bool, Field(alias="async")] = True
    """Write in the background; training waits only for the copy in memory."""

    push_every: bool = True
    """With spec.hub: push each checkpoint in the background, the model as commit `step N` with tag `step-N`, the
    optimizer and position to branch `<hub.revision>-state`."""

    resume_from: HubRevisionSource | None = None
    """A pushed checkpoint to resume from, with optimizer and position, until this run has its own."""

    grace_period: Duration = "120s"
    """Time for a checkpoint after a termination signal."""


class Samples(Model):
    """Sample texts written during training."""

    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=2048)]], Field(max_length=16)] = []
    """Prompts; none: no samples."""

    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most tokens per sample."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 0.4
    """Sampling temperature; 0 is greedy."""


class PretrainEvaluate(Model):
    """Evaluation on the validation split, also before the first and after the last step."""

    every_steps: Steps = 1000
    """Optimizer steps between evaluations."""

    batches: Annotated[int, Field(ge=-1)] = -1
    """Most batches of `batch.sequences`; -1: all, 0: no evaluation."""

    samples: Samples = Samples()
    """Sample texts at each evaluation."""


class LossSpike(Model):
    """Detection of loss spikes."""

    factor: Annotated[float, Field(gt=1, le=1000)] = 2.0
    """A loss above this multiple of the window's median is a spike."""

    window: Annotated[int, Field(ge=8, le=10_000)] = 128
    """Updates in the window; detection starts when it is full."""

    action: Literal["stop", "skip", "rollback"] = "rollback"
    """`stop` fails the run; `skip` skips the batch; `rollback` returns to the newest checkpoint and skips the batches
    since, or skips the batch without one."""


class Guard(Model):
    """Reaction to a diverging loss; skipped batches are recorded and stay skipped after a resume."""

    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    """Reaction to a NaN or infinite loss or gradient, as in lossSpike.action."""

    loss_spike: LossSpike | None = None
    """Detection of loss spikes; absent: off."""

    max_interventions: Annotated[int, Field(ge=1, le=1000)] = 10
    """Skipped batches plus rollbacks, after which the run fails."""

    stall_timeout: Duration = "10m"
    """Time without progress, at least five usual steps, after which workers log the stacks of their threads and
    restart; ten times as long before the first update."""


class WandB(Model):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    """Project of the run."""

    entity: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """User or team; default: that of the API key."""

    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto`: online with a key, else offline, to sync later from the artifact."""

    base_url: Url | None = None
    """URL of a self-hosted server; default: the public one."""

    secret: SecretKey | None = None
    """Secret with the API key."""


class Tracking(Model):
    """Experiment trackers, in addition to Prometheus."""

    tensorboard: bool = True
    """Write TensorBoard event files to `run/tensorboard` of the artifact."""

    wandb: WandB | None = None
    """Log to Weights & Biases."""


class PretrainRunSpec(RunSpec):
    """Trains a language model."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                _LONG_ENOUGH,
                "data.sequenceLength must not exceed model.overrides.maxPositions",
            ),
            FAMILY_RULE,
            (
                "self.corpora.all(c, has(c.weight)) || !self.corpora.exists(c, has(c.weight))",
                "set weight for every corpus or for none",
            ),
            (
                "self.data.packing == 'concat' || self.objective.type == 'causal'",
                "data.packing bestFit requires objective causal",
            ),
            (
                "!self.data.documentMask || self.objective.type == 'causal'",
                "data.documentMask requires objective causal",
            ),
            (
                "!has(self.objective.masked) || !self.objective.masked.nextSentence"
                " || self.model.architecture == 'bert'",
                "objective.masked.nextSentence requires model.architecture bert, the only one with that head",
            ),
            (
                "self.attention != 'flash' || (self.precision != 'fp32' && self.model.architecture != 't5'"
                " && !self.data.documentMask)",
                "attention flash requires precision bf16 or fp16,"
                " and neither model.architecture t5 nor data.documentMask",
            ),
            (
                "self.precision != 'fp16' || self.parallelism.strategy == 'ddp'",
                "precision fp16 requires parallelism.strategy ddp: FSDP shards have no common gradient scale",
            ),
            (
                "self.data.loading == 'mmap' || (self.objective.type == 'causal' && self.data.packing == 'concat')",
                "data.loading streaming requires objective causal with packing concat",
            ),
            (
                f"self.parallelism.nodes * {_PROCESSES} <= self.batch.sequences / self.batch.perDevice",
                "parallelism.nodes x processesPerNode must not exceed batch.sequences / batch.perDevice, since every"
                " worker needs a share of the global batch; lower them, or create a run with a larger batch",
            ),
        )
    )

    objective: ObjectiveSpec = ObjectiveSpec()
    """Training objective."""

    corpora: Annotated[list[TrainingCorpus], Field(min_length=1, max_length=16)]
    """Training data."""

    encode: Encode = Encode()
    """The encode stage."""

    tokenizer_ref: Ref
    """TokenizerBuild with the tokenizer."""

    model: PretrainModel = PretrainModel()
    """Model."""

    data: PretrainData = PretrainData()
    """From documents to sequences."""

    schedule: ScheduleSpec
    """Steps and learning rate."""

    optimizer: Optimizer = Optimizer()
    """Optimizer."""

    batch: BatchSpec = BatchSpec()
    """Global batch and micro-batch."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of forward and backward pass; weights and optimizer stay fp32. fp16 requires GPUs and ddp."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile; auto: on GPUs, if shapes are static."""

    attention: Literal["auto", "sdpa", "flash", "eager"] = "auto"
    """Attention kernel; auto: sdpa. flash requires NVIDIA GPUs, bf16 or fp16, and flash-attn in spec.image."""

    parallelism: Parallelism = Parallelism()
    """Workers."""

    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints."""

    evaluate: PretrainEvaluate = PretrainEvaluate()
    """Evaluation during training."""

    guard: Guard = Guard()
    """Reaction to a diverging loss or a stall."""

    tracking: Tracking = Tracking()
    """Experiment trackers, in addition to Prometheus."""

    card: Card = Card()
    """Texts of the model card."""

    @property
    def pull_token(self) -> SecretKey | None:
        """Secret with the token for the corpora; of several the first, which must give access to all."""
        return next((c.hub.token_secret for c in self.corpora if c.hub and c.hub.token_secret), None)

    @property
    def encode_token(self) -> SecretKey | None:
        """Secret with the one token of encode pods: the corpora's, else the one for pushing."""
        return self.pull_token or (self.hub.token_secret if self.hub else None)
