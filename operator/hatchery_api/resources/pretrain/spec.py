"""PretrainRun: a language model trained from a configuration on a corpus."""

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
    """A dataset of the Hub."""

    model_config = ConfigDict(json_schema_extra=spelled_out("dataset", "split", "revision"))


class TrainingFiles(Files):
    """Files of documents."""

    model_config = ConfigDict(json_schema_extra=spelled_out("urls", "format"))


class TrainingCorpus(Model):
    """One corpus of the training data."""

    model_config = ConfigDict(json_schema_extra=cel(exactly_one("corpusRef", "hub", "files")))

    corpus_ref: Ref | None = None
    """A CorpusBuild; its train split is learnt, its validation split measured."""

    hub: TrainingDataset | None = None
    """A dataset of the Hub, as it is; fields as in a CorpusBuild."""

    files: TrainingFiles | None = None
    """Files, as they are; fields as in a CorpusBuild."""

    weight: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Share of the training sequences, relative to the other corpora; absent for all: by their size."""


class Encode(Model):
    """The stage that turns text into tokens, once."""

    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods that share the files of the corpora."""


class Shuffle(Model):
    """Order of the training sequences."""

    seed: Seed = 1
    """Seed; the order is a pure function of seed, epoch and position."""

    buffer_rows: Annotated[int, Field(ge=1, le=1_048_576)] = 1000
    """Sequences that `streaming` shuffles among each other; `mmap` shuffles all."""


class PretrainData(Model):
    """How documents become sequences."""

    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] = 1024
    """Tokens in a sequence, those the objective adds included; of seq2seq the longest input and the longest target."""

    packing: Literal["concat", "bestFit"] = "concat"
    """`concat`: documents are joined with the end-of-text token and cut; no padding. `bestFit`: documents that fit into
    a sequence are never cut; the rest of a sequence is padding."""

    document_mask: bool = False
    """Documents of one sequence do not see each other; for causal."""

    dynamic_padding: bool = True
    """Pad pairs (seq2seq) to the longest text of a forward pass, not to sequenceLength."""

    pad_to_multiple_of: Annotated[int, Field(ge=1, le=1024)] = 8
    """Padded lengths of seq2seq are multiples of this, at most sequenceLength."""

    loading: Literal["mmap", "streaming"] = "mmap"
    """`mmap`: text is encoded once and tokens are read from memory-mapped files. `streaming`: text is read and encoded
    while training, without disk."""

    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """Share of the documents of `hub` and `files` that is measured and not learnt."""

    shuffle: Shuffle = Shuffle()
    """Order of the sequences."""


class ScheduleSpec(Model):
    """Learning rate by optimizer step."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.warmupSteps < self.steps", "warmupSteps must be below steps"),
            ("self.minLr <= self.peakLr", "minLr must not be above peakLr"),
            ("!has(self.decaySteps) || self.type == 'wsd'", "decaySteps belongs to type wsd"),
            (
                "!has(self.decaySteps) || self.warmupSteps + self.decaySteps <= self.steps",
                "warmupSteps and decaySteps together must not be above steps",
            ),
        )
    )

    steps: Steps
    """Optimizer steps of the whole run."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which the rate rises in equal parts; the last of them has peakLr."""

    type: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Course after the warm-up, down to minLr; constant stays at peakLr, wsd stays until decaySteps before the end."""

    decay_steps: Annotated[int, Field(ge=1)] | None = None
    """Last steps, in which wsd falls linearly to minLr; default: a tenth of steps."""

    peak_lr: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """Highest learning rate."""

    min_lr: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the last step; constant has none."""


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


class BatchSpec(Model):
    """How many sequences one optimizer step sees, whatever the number of workers."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.sequences % self.perDevice == 0", "perDevice must divide sequences (the global batch)")
        )
    )

    sequences: Annotated[int, Field(ge=1, le=1_048_576)] = 192
    """Sequences in one optimizer step over all workers; gradient accumulation is derived."""

    per_device: Annotated[int, Field(ge=1, le=65_536)] = 12
    """Sequences in one forward pass of one process; halved by itself where memory does not suffice."""


class Parallelism(Model):
    """Workers of the run; they may change while it runs, and change nothing about what is learnt."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods."""

    processes_per_node: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """Processes in a pod; auto: one for each GPU asked for, without GPUs one with a thread for each processor."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every process holds the whole model; `fsdp`: a part of it (FSDP2)."""


class Checkpoint(Model):
    """When and how long state is kept."""

    every_steps: Steps = 1000
    """Optimizer steps between checkpoints; a termination signal makes one at once."""

    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Newest checkpoints that stay; the volume needs room for two more."""

    asynchronous: Annotated[bool, Field(alias="async")] = True
    """Write while training goes on; it waits only for the copy in memory."""

    push_every: bool = True
    """With spec.hub: push each checkpoint in the background, its model as commit `step N` with tag `step-N`, its
    optimizer and position to the branch `<hub.revision>-state`."""

    resume_from: HubRevisionSource | None = None
    """A pushed checkpoint to start from, with optimizer and position, while this run has none of its own."""

    grace_period: Duration = "120s"
    """Time a pod has to checkpoint after a termination signal."""


class Samples(Model):
    """Texts the model writes while it learns."""

    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=2048)]], Field(max_length=16)] = []
    """Beginnings of texts; none: no samples."""

    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Tokens written after a prompt."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 0.4
    """Sampling temperature; 0 is greedy."""


class PretrainEvaluate(Model):
    """Measurement on the validation split during the run; also before the first and after the last step."""

    every_steps: Steps = 1000
    """Optimizer steps between measurements."""

    batches: Annotated[int, Field(ge=-1)] = -1
    """Batches of `batch.sequences` at most; -1 for all, 0 for no measurement."""

    samples: Samples = Samples()
    """Texts written at each measurement."""


class LossSpike(Model):
    """A loss far above the recent ones."""

    factor: Annotated[float, Field(gt=1, le=1000)] = 2.0
    """A loss above this many times the median of the window is a spike."""

    window: Annotated[int, Field(ge=8, le=10_000)] = 128
    """Updates the median is taken of; before there are as many nothing is a spike."""

    action: Literal["stop", "skip", "rollback"] = "rollback"
    """`stop` ends the run; `skip` leaves the batch out; `rollback` goes back to the newest checkpoint and leaves out
    the batches since, or skips where there is none."""


class Guard(Model):
    """What happens when training goes wrong; what is left out is recorded and stays left out after a resume."""

    non_finite: Literal["stop", "skip", "rollback"] = "stop"
    """What happens when loss or gradient are no number: as in lossSpike.action."""

    loss_spike: LossSpike | None = None
    """Watches for sudden losses; absent: it does not."""

    max_interventions: Annotated[int, Field(ge=1, le=1000)] = 10
    """Batches skipped and roll-backs together, after which the run ends."""

    stall_timeout: Duration = "10m"
    """Time in which nothing is done, and five usual steps at least, after which workers write the stacks of their
    threads to the log and are started again; ten times as long before the first update."""


class WandB(Model):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    """Project the run appears in."""

    entity: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """User or team; default: that of the key."""

    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto`: online with a key, else offline, to be synced later from the artifact."""

    base_url: Url | None = None
    """URL of a server of your own; default: the public one."""

    secret: SecretKey | None = None
    """Secret with the API key."""


class Tracking(Model):
    """Where metrics are logged beside Prometheus."""

    tensorboard: bool = True
    """Writes TensorBoard event files into `run/tensorboard` of the artifact."""

    wandb: WandB | None = None
    """Logs to Weights & Biases."""


class PretrainRunSpec(RunSpec):
    """Trains a language model."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                _LONG_ENOUGH,
                "data.sequenceLength must not be above model.overrides.maxPositions",
            ),
            FAMILY_RULE,
            (
                "self.corpora.all(c, has(c.weight)) || !self.corpora.exists(c, has(c.weight))",
                "give every corpus a weight or none",
            ),
            (
                "self.data.packing == 'concat' || self.objective.type == 'causal'",
                "data.packing bestFit belongs to objective causal",
            ),
            (
                "!self.data.documentMask || self.objective.type == 'causal'",
                "data.documentMask belongs to objective causal",
            ),
            (
                "!has(self.objective.masked) || !self.objective.masked.nextSentence"
                " || self.model.architecture == 'bert'",
                "objective.masked.nextSentence needs model.architecture bert, which has a head for it",
            ),
            (
                "self.attention != 'flash' || (self.precision != 'fp32' && self.model.architecture != 't5'"
                " && !self.data.documentMask)",
                "attention flash needs precision bf16 or fp16, and neither model.architecture t5 nor data.documentMask",
            ),
            (
                "self.precision != 'fp16' || self.parallelism.strategy == 'ddp'",
                "precision fp16 needs parallelism.strategy ddp: parts of a model have no common gradient scale",
            ),
            (
                "self.data.loading == 'mmap' || (self.objective.type == 'causal' && self.data.packing == 'concat')",
                "data.loading streaming belongs to objective causal with packing concat",
            ),
            (
                f"self.parallelism.nodes * {_PROCESSES} <= self.batch.sequences / self.batch.perDevice",
                "parallelism.nodes times processesPerNode must not be above batch.sequences / batch.perDevice, since"
                " every worker needs a part of the global batch; lower them, or raise the batch of a new run",
            ),
        )
    )

    objective: ObjectiveSpec = ObjectiveSpec()
    """What is learnt."""

    corpora: Annotated[list[TrainingCorpus], Field(min_length=1, max_length=16)]
    """Training data."""

    encode: Encode = Encode()
    """The stage that turns text into tokens."""

    tokenizer_ref: Ref
    """The TokenizerBuild whose tokenizer is used."""

    model: PretrainModel = PretrainModel()
    """The model."""

    data: PretrainData = PretrainData()
    """How documents become sequences."""

    schedule: ScheduleSpec
    """Steps and learning rate."""

    optimizer: Optimizer = Optimizer()
    """Optimizer."""

    batch: BatchSpec = BatchSpec()
    """Global and per-process batch."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass; weights and optimizer stay fp32. fp16 needs GPUs and ddp."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile; auto: on GPUs, where the shapes never change."""

    attention: Literal["auto", "sdpa", "flash", "eager"] = "auto"
    """Kernel of the attention; auto: sdpa. flash needs NVIDIA GPUs, 16 bits, and flash-attn in spec.image."""

    parallelism: Parallelism = Parallelism()
    """Workers."""

    checkpoint: Checkpoint = Checkpoint()
    """Saved state."""

    evaluate: PretrainEvaluate = PretrainEvaluate()
    """Measurement during the run."""

    guard: Guard = Guard()
    """What happens when training goes wrong."""

    tracking: Tracking = Tracking()
    """Where metrics are logged beside Prometheus."""

    card: Card = Card()
    """Texts of the model card."""

    @property
    def pull_token(self) -> SecretKey | None:
        """Secret with the token of the corpora; of several the first, which must open all."""
        return next((c.hub.token_secret for c in self.corpora if c.hub and c.hub.token_secret), None)

    @property
    def encode_token(self) -> SecretKey | None:
        """Secret with the token of pods that encode, which have one: the corpora's, else the one to push with."""
        return self.pull_token or (self.hub.token_secret if self.hub else None)
