"""Condition types, and every reason with its explanation: the source of the troubleshooting page."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from hatchery_api.base import Record


class ConditionType(StrEnum):
    """Condition types, per the Kubernetes API conventions."""

    SUCCEEDED = "Succeeded"
    """True when the artifact is ready, False when the run failed for good, else Unknown. Wait for this one."""
    PROGRESSING = "Progressing"
    """True while the operator or a Job works on the artifact."""
    SUSPENDED = "Suspended"
    """True while `spec.suspend` holds the run."""
    DEGRADED = "Degraded"
    """True while something is wrong that may recover: an attempt failed, pods cannot start."""
    STALLED = "Stalled"
    """True while pods run but have reported no progress for longer than the operator's setting `stalledSeconds`."""
    STALE = "Stale"
    """True when a referenced resource has changed since this run used it; the operator never repeats the run."""


class Reason(StrEnum):
    """Why a condition has its status."""

    WAITING = "Waiting"
    """A referenced resource is not ready, or does not exist yet."""
    PENDING = "Pending"
    """The Job exists; no pod runs yet."""
    QUEUED = "Queued"
    """A queue, for example Kueue, keeps the Job suspended until quota is available."""
    PREEMPTED = "Preempted"
    """The queue preempted the Job; it resumes from the newest checkpoint once it is admitted again."""
    RUNNING = "Running"
    """Pods are running."""
    RETRYING = "Retrying"
    """An attempt failed; the next one starts after the backoff."""
    SUSPENDING = "Suspending"
    """`spec.suspend` is true; the pods save their state and terminate."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true and all pods have terminated."""
    RESIZING = "Resizing"
    """`spec.parallelism` changed: the pods save their state and terminate, then training resumes at the new size."""
    COMPLETED = "Completed"
    """The artifact is complete."""
    IMAGE_PULL_ERROR = "ImagePullError"
    """The image cannot be pulled: check `spec.image`, the registry and its credentials."""
    UNSCHEDULABLE = "Unschedulable"
    """No node fits the pods: compare their requests with what nodes have free."""
    MISSING_REFERENCE = "MissingReference"
    """An object that the pods need does not exist (Secret or its key, ConfigMap, PersistentVolumeClaim, PriorityClass,
    RuntimeClass, ServiceAccount): create it; the pods then start."""
    VOLUME_NOT_READY = "VolumeNotReady"
    """A PersistentVolumeClaim is not bound, or its volume cannot be mounted: see `kubectl describe pvc`."""
    CONTAINER_CANNOT_START = "ContainerCannotStart"
    """The node cannot start the container: the image lacks the jobs, or the node is misconfigured."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota of the namespace is exhausted: request less, wait for other pods, or raise the quota."""
    LIMIT_RANGE_VIOLATED = "LimitRangeViolated"
    """A LimitRange of the namespace forbids these amounts: change `spec.placement.resources`."""
    POD_SECURITY_VIOLATED = "PodSecurityViolated"
    """The namespace's Pod Security level rejects the pods; the message lists the violations."""
    POD_REFUSED = "PodRefused"
    """Another rule, such as an admission policy, rejects the pods; the message names it."""
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    """The namespace is being deleted, so no pod can start in it."""
    CRD_OUTDATED = "CRDOutdated"
    """The installed CustomResourceDefinition is older than the operator and drops fields: apply the new one."""
    NAME_CONFLICT = "NameConflict"
    """An object of another owner, or of a deleted run, has the name of a child: delete the one in the message."""
    OUT_OF_MEMORY = "OutOfMemory"
    """A pod or device ran out of memory: raise the limit that the message names, or use smaller batches."""
    EVICTED = "Evicted"
    """The node evicted a pod for using too much of the resource that the message names."""
    DISRUPTED = "Disrupted"
    """A pod was lost to preemption, a drain or a lost node; it is replaced and not counted as a failure."""
    POD_FAILED = "PodFailed"
    """A pod failed and is replaced within the same attempt; the message has its error."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The Job exceeded an `activeDeadlineSeconds` that something other than the operator set on it."""
    NO_PROGRESS = "NoProgress"
    """Pods run but report no progress and may hang: check their logs."""
    REFERENCE_FAILED = "ReferenceFailed"
    """A referenced resource has failed: delete it and create it again, or reference another one."""
    INVALID_SPEC = "InvalidSpec"
    """The spec can never succeed; the message names the field."""
    SOURCE_NOT_FOUND = "SourceNotFound"
    """A source does not exist or matches no file."""
    UNREADABLE_INPUT = "UnreadableInput"
    """A file or row cannot be read; the message names it."""
    EMPTY_CORPUS = "EmptyCorpus"
    """No document is left; the funnel in the message shows which step dropped them."""
    VOCABULARY_TOO_LARGE = "VocabularyTooLarge"
    """The corpus does not support a vocabulary of this size: lower `spec.vocabSize` or use more documents."""
    VOCABULARY_MISMATCH = "VocabularyMismatch"
    """The tokenizer does not match the model or the tokens."""
    SEQUENCE_TOO_LONG = "SequenceTooLong"
    """Sequences are longer than the model's context."""
    NOT_ENOUGH_TEXT = "NotEnoughText"
    """The corpus is too small for a single batch."""
    NON_FINITE_LOSS = "NonFiniteLoss"
    """The loss became NaN or infinite: lower the learning rate or `spec.optimizer.clipNorm`."""
    LOSS_SPIKE = "LossSpike"
    """The loss spiked more often than `spec.guard.maxInterventions` allows: lower the learning rate."""
    STORAGE_ERROR = "StorageError"
    """The artifact store is full or cannot be written; its ports must be open in the operator's `networkPolicies`."""
    ARTIFACT_CORRUPT = "ArtifactCorrupt"
    """An input's files do not match their digests: build the input again."""
    HUB_UNAUTHORIZED = "HubUnauthorized"
    """The Hub rejects the token: check the Secret in `spec.hub.tokenSecret`."""
    HUB_NOT_FOUND = "HubNotFound"
    """The Hub has no such repository, revision or organisation."""
    HUB_UNAVAILABLE = "HubUnavailable"
    """The Hub is unreachable or overloaded; the operator retries. Its port must be open in `networkPolicies`."""
    INTERRUPTED = "Interrupted"
    """The pod received a termination signal, saved its state and is restarted."""
    ATTEMPT_FAILED = "AttemptFailed"
    """A pod failed with an unknown error; the message has its last log lines."""
    UP_TO_DATE = "UpToDate"
    """Nothing is wrong."""
    REFERENCE_CHANGED = "ReferenceChanged"
    """A referenced resource has a newer artifact than the one this run used."""


class Condition(Record):
    """One condition of a resource, per the Kubernetes API conventions."""

    type: Annotated[str, Field(max_length=64)]
    """Type of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Annotated[str, Field(max_length=64)]
    """Reason in CamelCase."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Explanation, with what the user can do."""
    last_transition_time: Annotated[str, Field(max_length=32)]
    """Time the status last changed, RFC 3339."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec the condition is about."""


def set_condition(conditions: Sequence[Condition], new: Condition) -> list[Condition]:
    """The conditions with one replaced; its transition time changes only with its status."""
    old = next((c for c in conditions if c.type == new.type), None)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    if old is None:
        return [*conditions, new]
    return [new if c.type == new.type else c for c in conditions]


def find_condition(conditions: Sequence[Condition], kind: ConditionType) -> Condition | None:
    """The condition of a type, None when it was never set."""
    return next((c for c in conditions if c.type == kind), None)
