"""Peak FLOP/s of a device, and the share of it that a run uses.

Peaks are those of the vendors' data sheets for dense matrices; the advertised peaks with sparsity are twice as high,
and training does not reach them. A device that is not in the table has no peak, because a guess would look like a
measurement.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch

from hatchery_jobs.runtime import log

Arithmetic = Literal["fp32", "tf32", "bf16", "fp16"]
"""Input types of the matrix units, which all accumulate in fp32."""

TERA: Final = 1e12

MATRIX_ROWS: Final = 1024
"""Rows and columns of the matrices that a CPU is measured with: large enough for full speed, 4 MiB in fp32."""

MEASURE_SECONDS: Final = 0.25
"""Time spent on measuring a CPU."""


@dataclass(frozen=True)
class Peaks:
    """Peaks of one kind of device in TFLOP/s; None for what its matrix units do not support."""

    names: str
    """Regular expression for the device's full name in torch."""
    half: float
    """fp16, and bf16 where the device has it."""
    tf32: float | None
    """fp32 rounded to 10 bits of mantissa for the matrix units."""
    fp32: float
    """Full fp32."""
    has_bf16: bool = True
    """False before NVIDIA's Ampere."""

    def of(self, arithmetic: Arithmetic) -> float | None:
        """The peak for an input type in TFLOP/s."""
        if arithmetic == "fp32":
            return self.fp32
        if arithmetic == "tf32":
            return self.tf32
        return self.half if arithmetic == "fp16" or self.has_bf16 else None


NVIDIA: Final = "(?:NVIDIA )?"
"""Older drivers omit the vendor."""

TABLE: Final = (
    Peaks(f"{NVIDIA}Tesla V100-SXM2-(16|32)GB", 125.0, None, 15.7, has_bf16=False),
    Peaks(f"{NVIDIA}Tesla V100-PCIE-(16|32)GB", 112.0, None, 14.0, has_bf16=False),
    Peaks(f"{NVIDIA}Tesla V100S-PCIE-32GB", 130.0, None, 16.4, has_bf16=False),
    Peaks(f"{NVIDIA}Tesla T4", 65.0, None, 8.1, has_bf16=False),
    Peaks(f"{NVIDIA}(A100-(SXM4|PCIE)-(40|80)GB|A100 80GB PCIe)", 312.0, 156.0, 19.5),
    Peaks(f"{NVIDIA}A30", 165.0, 82.0, 10.3),
    Peaks(f"{NVIDIA}A40", 149.7, 74.8, 37.4),
    Peaks(f"{NVIDIA}A10", 125.0, 62.5, 31.2),
    Peaks(f"{NVIDIA}A10G", 70.0, 35.0, 35.0),
    Peaks(f"{NVIDIA}RTX A6000", 154.8, 77.4, 38.7),
    # consumer boards run at half speed when they accumulate in fp32, which training needs
    Peaks(f"{NVIDIA}GeForce RTX 3090", 71.0, 35.6, 35.6),
    Peaks(f"{NVIDIA}GeForce RTX 4090", 165.2, 82.6, 82.6),
    Peaks(f"{NVIDIA}RTX 6000 Ada Generation", 364.2, 182.1, 91.1),
    Peaks(f"{NVIDIA}L4", 121.0, 60.0, 30.3),
    Peaks(f"{NVIDIA}L40", 181.0, 90.5, 90.5),
    Peaks(f"{NVIDIA}L40S", 362.0, 183.0, 91.6),
    # the same chip with different power limits and memory; only the name differs
    Peaks(f"{NVIDIA}H100 PCIe", 756.0, 378.0, 51.0),
    Peaks(f"{NVIDIA}H100 NVL", 835.5, 417.5, 60.0),
    Peaks(f"{NVIDIA}H100 80GB HBM3", 989.5, 494.5, 67.0),
    Peaks(f"{NVIDIA}H200", 989.5, 494.5, 67.0),
    Peaks(f"{NVIDIA}H200 NVL", 835.5, 417.5, 60.0),
    Peaks(f"{NVIDIA}GH200 (120GB|480GB|144G HBM3e)", 989.5, 494.5, 67.0),
    Peaks(f"{NVIDIA}B200", 2250.0, 1125.0, 75.0),
    # torch sees each of the board's two chips as a device
    Peaks("AMD Instinct MI250X", 191.5, None, 47.9),
    Peaks("AMD Instinct MI210", 181.0, None, 45.3),
    Peaks("AMD Instinct MI300X", 1307.4, 653.7, 163.4),
)
"""Known devices. Slices of a device (MIG) have longer names and therefore no peak."""


def known_peak(name: str, arithmetic: Arithmetic) -> float | None:
    """Peak of a device in FLOP/s by its name; None for one that is not in the table."""
    found = (peaks.of(arithmetic) for peaks in TABLE if re.fullmatch(peaks.names, name.strip()))
    peak = next(found, None)
    return None if peak is None else peak * TERA


@dataclass(frozen=True)
class Device:
    """The device of one worker."""

    name: str
    """Name of the GPU, or `cpu`."""
    peak: float | None
    """Peak FLOP/s; None if unknown."""


def this_device(device: torch.device, precision: Literal["fp32", "bf16", "fp16"]) -> Device:
    """This worker's device. A CPU is measured for `MEASURE_SECONDS`, with this worker's own threads."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = known_peak(name, _arithmetic(precision))
        if peak is None:
            log("device-peak-unknown", device=name, arithmetic=_arithmetic(precision))
        return Device(name, peak)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Device(f"cpu, {torch.get_num_threads()} of {os.cpu_count()} threads", measured_peak(dtype))


def _arithmetic(precision: Literal["fp32", "bf16", "fp16"]) -> Arithmetic:
    """The input type for a precision; fp32 becomes TF32 where torch may round."""
    is_rounded = precision == "fp32" and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if is_rounded else precision


def measured_peak(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """Measured peak FLOP/s of square matrix products on the CPU; does not touch torch's generators."""
    matrix = torch.ones(MATRIX_ROWS, MATRIX_ROWS, dtype=dtype)
    out = matrix @ matrix  # the first product starts the threads
    began, fastest = clock(), float("inf")
    while True:
        before = clock()
        torch.mm(matrix, matrix, out=out)
        after = clock()
        fastest = min(fastest, after - before)
        if after - began >= MEASURE_SECONDS:
            return 2 * MATRIX_ROWS**3 / fastest


def utilization(tokens_per_second: float, flops_per_token: float, peak: float | None, devices: int) -> float | None:
    """Model FLOPs utilization (MFU): the share of the peak of all devices that the model's own arithmetic uses.

    Args:
        tokens_per_second: Over all devices.
        flops_per_token: Of forward and backward pass, without recomputation.
        peak: Of one device in FLOP/s; None gives None.
        devices: Number of devices.
    """
    return None if peak is None else tokens_per_second * flops_per_token / (peak * devices)


def device_memory() -> tuple[int, int]:
    """Peak GPU memory of this process in bytes: allocated, and reserved by torch; zeros without a GPU."""
    if not torch.cuda.is_available():
        return 0, 0
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


@dataclass(frozen=True)
class RunInfo:
    """What a run trains and on what, for speed and utilization."""

    parameters: int
    """Trainable parameters."""
    tokens_per_step: int
    """Tokens of one update over all workers."""
    flops_per_token: float
    """Floating-point operations of the model per token, forward and backward, without recomputation."""
    workers: int
    """Processes, each with its own device."""
    device: Device
    """The lead's device; all workers have the same kind."""

    def tokens_per_second(self, steps: int, seconds: float) -> float | None:
        """Throughput over a number of updates; None before the first one."""
        return steps * self.tokens_per_step / seconds if seconds > 0 else None

    def mfu(self, steps: int, seconds: float) -> float | None:
        """Model FLOPs utilization over a number of updates; None for unknown devices."""
        speed = self.tokens_per_second(steps, seconds)
        return None if speed is None else utilization(speed, self.flops_per_token, self.device.peak, self.workers)
