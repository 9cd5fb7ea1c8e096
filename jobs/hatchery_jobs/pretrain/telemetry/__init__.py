"""Telemetry of a run: its record on disk, Prometheus metrics, trackers, live progress and the workers' logs.

Only `pretrain.training` may import it. It imports torch.
"""

from hatchery_jobs.pretrain.telemetry.hardware import RunInfo, this_device
from hatchery_jobs.pretrain.telemetry.recorder import LeadRecorder, NullRecorder, Recorder, open_log

__all__ = ["LeadRecorder", "NullRecorder", "Recorder", "RunInfo", "open_log", "this_device"]
