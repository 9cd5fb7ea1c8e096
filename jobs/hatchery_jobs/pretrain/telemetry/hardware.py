"""How fast a device could compute at best, and what share of that a run uses.

Peaks are those of the vendors' data sheets for dense matrices, in FLOP/s: with sparsity they advertise twice as much,
which no training reaches. A device that is not in the table has no peak: a guess would make a number that looks right.
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
"""What the matrix units multiply; all of them add in fp32."""

TERA: Final = 1e12

MATRIX_ROWS: Final = 1024
"""Rows and columns of the matrices a processor is measured with: large enough for its full speed, 4 MiB in fp32."""

MEASURE_SECONDS: Final = 0.25
"""Time spent on measuring a processor."""


@dataclass(frozen=True)
class Peaks:
    """Peaks of one kind of device in TFLOP/s; None where its matrix units do not know the arithmetic."""

    names: str
    """Regular expression of the whole name, as torch says it."""
    half: float
    """fp16, and bf16 where the device has it."""
    tf32: float | None
    """fp32 that is rounded to 10 bits of mantissa for the matrix units."""
    fp32: float
    """Full fp32."""
    has_bf16: bool = True
    """False before NVIDIA's Ampere."""

    def of(self, arithmetic: Arithmetic) -> float | None:
        """The peak of an arithmetic in TFLOP/s."""
        if arithmetic == "fp32":
            return self.fp32
        if arithmetic == "tf32":
            return self.tf32
        return self.half if arithmetic == "fp16" or self.has_bf16 else None


NVIDIA: Final = "(?:NVIDIA )?"
"""Older drivers leave the vendor out."""

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
    # consumer boards halve matrix products that are added in fp32, which training needs
    Peaks(f"{NVIDIA}GeForce RTX 3090", 71.0, 35.6, 35.6),
    Peaks(f"{NVIDIA}GeForce RTX 4090", 165.2, 82.6, 82.6),
    Peaks(f"{NVIDIA}RTX 6000 Ada Generation", 364.2, 182.1, 91.1),
    Peaks(f"{NVIDIA}L4", 121.0, 60.0, 30.3),
    Peaks(f"{NVIDIA}L40", 181.0, 90.5, 90.5),
    Peaks(f"{NVIDIA}L40S", 362.0, 183.0, 91.6),
    # the same chip with other power and memory: only the name tells them apart
    Peaks(f"{NVIDIA}H100 PCIe", 756.0, 378.0, 51.0),
    Peaks(f"{NVIDIA}H100 NVL", 835.5, 417.5, 60.0),
    Peaks(f"{NVIDIA}H100 80GB HBM3", 989.5, 494.5, 67.0),
    Peaks(f"{NVIDIA}H200", 989.5, 494.5, 67.0),
    Peaks(f"{NVIDIA}H200 NVL", 835.5, 417.5, 60.0),
    Peaks(f"{NVIDIA}GH200 (120GB|480GB|144G HBM3e)", 989.5, 494.5, 67.0),
    Peaks(f"{NVIDIA}B200", 2250.0, 1125.0, 75.0),
    # torch sees each of the two chips of a board as a device
    Peaks("AMD Instinct MI250X", 191.5, None, 47.9),
    Peaks("AMD Instinct MI210", 181.0, None, 45.3),
    Peaks("AMD Instinct MI300X", 1307.4, 653.7, 163.4),
)
"""Devices that are known. Slices of a device (MIG) have longer names and so no peak."""


def known_peak(name: str, arithmetic: Arithmetic) -> float | None:
    """Peak in FLOP/s of the device of a name; None for one that is not in the table."""
    found = (peaks.of(arithmetic) for peaks in TABLE if re.fullmatch(peaks.names, name.strip()))
    peak = next(found, None)
    return None if peak is None else peak * TERA


@dataclass(frozen=True)
class Device:
    """What one worker computes with."""

    name: str
    """Name of the GPU, or `cpu`."""
    peak: float | None
    """FLOP/s at best; None: unknown."""


def this_device(device: torch.device, precision: Literal["fp32", "bf16", "fp16"]) -> Device:
    """The device of this worker. A processor is measured for `MEASURE_SECONDS`, with this worker's own threads."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = known_peak(name, _arithmetic(precision))
        if peak is None:
            log("device-peak-unknown", device=name, arithmetic=_arithmetic(precision))
        return Device(name, peak)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Device(f"cpu, {torch.get_num_threads()} of {os.cpu_count()} threads", measured_peak(dtype))


def _arithmetic(precision: Literal["fp32", "bf16", "fp16"]) -> Arithmetic:
    """fp32 becomes TF32 where torch is allowed to round."""
    is_rounded = precision == "fp32" and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if is_rounded else precision


def measured_peak(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of the fastest product of two square matrices on the processor; leaves torch's random state alone."""
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
    """Model FLOPs utilization (MFU): share of the peak of all devices that the model's own arithmetic takes.

    Args:
        tokens_per_second: over all devices.
        flops_per_token: of forward and backward pass, without anything computed twice.
        peak: of one device in FLOP/s; None gives None.
        devices: devices that work together.
    """
    return None if peak is None else tokens_per_second * flops_per_token / (peak * devices)


def device_memory() -> tuple[int, int]:
    """Bytes of this process's GPU at their highest: allocated, and reserved by torch; zeros without a GPU."""
    if not torch.cuda.is_available():
        return 0, 0
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
