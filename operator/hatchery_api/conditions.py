"""Conditions, and every reason with its sentence. This file is the user's troubleshooting page."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from hatchery_api.base import Record


class ConditionType(StrEnum):
    """Condition types, per the Kubernetes API conventions."""

    SUCCEEDED = "Succeeded"
    """The one to wait for: True when the artifact is ready, False when it never will be, else Unknown."""
    PROGRESSING = "Progressing"
    """True while a Job works towards the artifact."""
    SUSPENDED = "Suspended"
    """True while `spec.suspend` holds the run."""
    DEGRADED = "Degraded"
    """True while something is wrong that may heal: an attempt failed, pods cannot start."""
    STALLED = "Stalled"
    """True while pods run and have reported no progress for longer than the operator's setting `stalledSeconds`."""
    STALE = "Stale"
    """True when a referenced resource has changed since it was used; the run is never repeated by itself."""


class Reason(StrEnum):
    """Why a condition is as it is."""

    WAITING = "Waiting"
    """A referenced resource is not ready or does not exist."""
    PENDING = "Pending"
    """The Job is created, no pod runs yet."""
    QUEUED = "Queued"
    """The Job is suspended by a queue, for example Kueue, until there is quota."""
    PREEMPTED = "Preempted"
    """The queue took the Job's admission back; it goes on from the newest checkpoint when it is admitted again."""
    RUNNING = "Running"
    """Pods run."""
    RETRYING = "Retrying"
    """An attempt failed; the next one starts after the back-off."""
    SUSPENDING = "Suspending"
    """`spec.suspend` is true; pods save their state and end."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true, and no pod is left."""
    RESIZING = "Resizing"
    """`spec.parallelism` has changed: pods save their state and end, and training goes on with as many as wanted."""
    COMPLETED = "Completed"
    """The artifact is complete."""
    IMAGE_PULL_ERROR = "ImagePullError"
    """The image cannot be pulled: check `spec.image`, the registry and its credentials."""
    UNSCHEDULABLE = "Unschedulable"
    """No node fits: compare what the pods ask for with what nodes have free."""
    MISSING_REFERENCE = "MissingReference"
    """An object the pods need does not exist (Secret or its key, ConfigMap, PersistentVolumeClaim, PriorityClass,
    RuntimeClass, ServiceAccount): create it, the pods then start."""
    VOLUME_NOT_READY = "VolumeNotReady"
    """A PersistentVolumeClaim is not bound, or its volume cannot be mounted: `kubectl describe pvc` says why."""
    CONTAINER_CANNOT_START = "ContainerCannotStart"
    """The node cannot start the container: an image without the jobs in it, or a node that is set up wrongly."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota of the namespace is used up: ask for less, wait until others end, or have it raised."""
    LIMIT_RANGE_VIOLATED = "LimitRangeViolated"
    """A LimitRange of the namespace does not allow the amounts: change `spec.placement.resources`."""
    POD_SECURITY_VIOLATED = "PodSecurityViolated"
    """The namespace's Pod Security level refuses the pods; the message lists what they violate."""
    POD_REFUSED = "PodRefused"
    """The API server refuses the pods for another rule, such as an admission policy; the message says which."""
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    """The namespace is being deleted; nothing can start in it."""
    CRD_OUTDATED = "CRDOutdated"
    """The installed CustomResourceDefinition is older than the operator and drops fields: apply the new one."""
    NAME_CONFLICT = "NameConflict"
    """An object of somebody else, or of a deleted run, has the name of a child: the message says which; delete it."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The memory of the pod, or of a device, does not suffice: raise the limit that the message names, or do less at
    once."""
    EVICTED = "Evicted"
    """A node evicted a pod for what it used; the message says of what."""
    DISRUPTED = "Disrupted"
    """A pod was lost to preemption, a drain or a node that is gone; it is replaced, and not counted as a failure."""
    POD_FAILED = "PodFailed"
    """A pod ended with an error and is replaced within the same attempt; its error is in the message."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The Job was ended at a deadline that somebody has set on it."""
    NO_PROGRESS = "NoProgress"
    """Pods run and report nothing new: they may hang; look at their logs."""
    REFERENCE_FAILED = "ReferenceFailed"
    """A referenced resource has failed and never will be ready."""
    INVALID_SPEC = "InvalidSpec"
    """The spec can never work as it is; the message says which field."""
    SOURCE_NOT_FOUND = "SourceNotFound"
    """A source matches no file or does not exist."""
    UNREADABLE_INPUT = "UnreadableInput"
    """A file or row cannot be read; the message says which."""
    EMPTY_CORPUS = "EmptyCorpus"
    """No document is left; the funnel in the message says where they went."""
    VOCABULARY_TOO_LARGE = "VocabularyTooLarge"
    """The corpus does not support a vocabulary of this size: lower `spec.vocabSize` or take more documents."""
    VOCABULARY_MISMATCH = "VocabularyMismatch"
    """Tokenizer and model or tokens do not belong together."""
    SEQUENCE_TOO_LONG = "SequenceTooLong"
    """Sequences are longer than the model can see."""
    NOT_ENOUGH_TEXT = "NotEnoughText"
    """The corpus is too small for a single batch."""
    NON_FINITE_LOSS = "NonFiniteLoss"
    """The loss is no number any more: lower the learning rate or clip more."""
    LOSS_SPIKE = "LossSpike"
    """The loss rose far above the recent ones more often than `spec.guard` may help: lower the learning rate."""
    STORAGE_ERROR = "StorageError"
    """The artifact store cannot be written or is full; the operator's `networkPolicies` open its ports."""
    ARTIFACT_CORRUPT = "ArtifactCorrupt"
    """An input's files do not match their hashes; build the input again."""
    HUB_UNAUTHORIZED = "HubUnauthorized"
    """The Hub refuses the token: check the Secret in `spec.hub.tokenSecret`."""
    HUB_NOT_FOUND = "HubNotFound"
    """The Hub has no such repository, revision or organisation."""
    HUB_UNAVAILABLE = "HubUnavailable"
    """The Hub cannot be reached or is overloaded; it is tried again. The operator's `networkPolicies` open ports."""
    INTERRUPTED = "Interrupted"
    """The pod was asked to end; it saved its state and is started again."""
    ATTEMPT_FAILED = "AttemptFailed"
    """A pod ended with an error of no known kind; its last lines are in the message."""
    UP_TO_DATE = "UpToDate"
    """Nothing is wrong."""
    REFERENCE_CHANGED = "ReferenceChanged"
    """A referenced resource has a newer artifact than the one used."""


class Condition(Record):
    """One condition of a resource, per the Kubernetes API conventions."""

    type: Annotated[str, Field(max_length=64)]
    """Type of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=64)]
    """Why, as one CamelCase word."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, as a sentence that says what the user can do."""
    last_transition_time: Annotated[str, Field(max_length=32)]
    """When status last changed, RFC 3339."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec this was said about."""


def set_condition(conditions: Sequence[Condition], new: Condition) -> list[Condition]:
    """The conditions with one replaced; its transition time stays when its status stays."""
    old = next((c for c in conditions if c.type == new.type), None)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    if old is None:
        return [*conditions, new]
    return [new if c.type == new.type else c for c in conditions]


def find_condition(conditions: Sequence[Condition], kind: ConditionType) -> Condition | None:
    """The condition of one type, if it was ever set."""
    return next((c for c in conditions if c.type == kind), None)
