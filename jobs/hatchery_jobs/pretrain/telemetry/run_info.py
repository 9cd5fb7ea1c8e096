"""What trains, in the numbers that speed is measured with."""

from dataclasses import dataclass

from hatchery_jobs.pretrain.telemetry.hardware import Device, utilization


@dataclass(frozen=True)
class RunInfo:
    """A run's model and workers."""

    parameters: int
    """Trainable parameters."""
    tokens_per_step: int
    """Tokens of one update over all workers."""
    flops_per_token: float
    """Floating-point operations of the model for one token, forward and backward, nothing computed twice."""
    workers: int
    """Processes, each with a device of its own."""
    device: Device
    """The lead's device; those of the others are alike."""

    def tokens_per_second(self, steps: int, seconds: float) -> float | None:
        """Speed over a number of updates; None before there is one."""
        return steps * self.tokens_per_step / seconds if seconds > 0 else None

    def mfu(self, steps: int, seconds: float) -> float | None:
        """Model FLOPs utilization over a number of updates; None for unknown devices."""
        speed = self.tokens_per_second(steps, seconds)
        return None if speed is None else utilization(speed, self.flops_per_token, self.device.peak, self.workers)
