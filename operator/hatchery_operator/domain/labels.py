"""Labels, annotations and the field manager of the operator's objects."""

from typing import Final

from hatchery_api.base import GROUP

MANAGER: Final = "hatchery"
"""Field manager of the children, and value of `MANAGED_BY_LABEL`."""

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
"""Label of every child: `hatchery`."""

KIND_LABEL: Final = f"{GROUP}/kind"
"""Label of every child: kind of its resource, CamelCase."""

NAME_LABEL: Final = f"{GROUP}/name"
"""Label of every child: name of its resource."""

UID_LABEL: Final = f"{GROUP}/uid"
"""Label of every child: UID of its resource."""

STAGE_LABEL: Final = f"{GROUP}/stage"
"""Label of every child: stage."""

ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
"""Label of every child: number of the attempt."""

ISOLATED_LABEL: Final = f"{GROUP}/isolated"
"""Label of the pods that the NetworkPolicies select. Pods of an older operator, or created while policies were
disabled, lack it: a gang among them has no policy of its own and must stay open to its members."""

SIZE_ANNOTATION: Final = f"{GROUP}/size"
"""Annotation of a resizable Job: nodes x processes, as the spec requested them."""

INPUT_ANNOTATION: Final = f"{GROUP}/input"
"""Annotation of the pods: the `JobInput` as JSON. It is part of the Job's template, which is immutable."""

QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue takes a Job into a queue."""

JOB_NAME_LABEL: Final = "batch.kubernetes.io/job-name"
"""Label that the Job controller sets on pods."""

JOB_INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
"""Label and annotation that the Job controller sets on the pods of an Indexed Job."""
