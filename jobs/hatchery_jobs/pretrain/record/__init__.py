"""The record of a run in the artifact's folder: loss curve, timeline and samples, with their writers and readers.

Never imports torch. `pretrain.telemetry` and `pretrain.training` write the record, `pretrain.report` reads it.
"""

from hatchery_jobs.pretrain.record.curve import CURVE, Curve, read_curve
from hatchery_jobs.pretrain.record.event_log import (
    TIMELINE,
    Event,
    EventLine,
    Timeline,
    read_timeline,
    restarts,
    restarts_by_cause,
    worker_seconds,
)
from hatchery_jobs.pretrain.record.sample_log import SAMPLES, Sample, read_samples, store_samples

__all__ = [
    "CURVE",
    "SAMPLES",
    "TIMELINE",
    "Curve",
    "Event",
    "EventLine",
    "Sample",
    "Timeline",
    "read_curve",
    "read_samples",
    "read_timeline",
    "restarts",
    "restarts_by_cause",
    "store_samples",
    "worker_seconds",
]
