"""Peaks of devices, and the share of them that a run uses."""

import pytest
import torch

from hatchery_jobs.pretrain.telemetry import hardware as devices
from hatchery_jobs.pretrain.telemetry.hardware import TABLE, known_peak, measured_peak, this_device, utilization


@pytest.mark.parametrize(
    ("name", "arithmetic", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("A100-SXM4-40GB", "fp16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "bf16", 835.5),
        ("NVIDIA H200", "fp32", 67),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", 70),
        ("Tesla V100-SXM2-32GB", "fp16", 125),
        ("Tesla T4", "fp16", 65),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("AMD Instinct MI300X", "bf16", 1307.4),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name, arithmetic, tera):
    assert known_peak(name, arithmetic) == pytest.approx(tera * 1e12)


@pytest.mark.parametrize(
    ("name", "arithmetic"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),  # a seventh of the device
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "bf16"),
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA L400", "bf16"),
        ("NVIDIA H100", "bf16"),  # which of them?
        ("", "bf16"),
        ("Tesla V100-SXM2-32GB", "bf16"),  # computes it, without matrix units
        ("Tesla T4", "tf32"),
    ],
)
def test_a_device_that_is_not_known_has_no_peak(name, arithmetic):
    assert known_peak(name, arithmetic) is None


def test_no_name_is_in_the_table_twice_and_less_precise_arithmetic_is_never_slower():
    for peaks in TABLE:
        assert peaks.half > peaks.fp32
        assert peaks.tf32 is None or peaks.half > peaks.tf32 >= peaks.fp32
    names = ["NVIDIA H100 PCIe", "NVIDIA A10", "NVIDIA A10G", "NVIDIA L40", "NVIDIA L40S", "NVIDIA H200 NVL"]
    assert [sum(devices.re.fullmatch(p.names, name) is not None for p in TABLE) for name in names] == [1] * len(names)


def test_a_processor_is_measured_by_its_fastest_product():
    times = iter([0.0, 0.0, 0.1, 0.1, 0.15, 0.2, 0.3])  # began; then before and after: 0.1 s, 0.05 s, 0.1 s
    assert measured_peak(torch.float32, lambda: next(times)) == pytest.approx(2 * 1024**3 / 0.05)


def test_measuring_leaves_the_random_state_alone(monkeypatch):
    monkeypatch.setattr(devices, "MEASURE_SECONDS", 0.0)
    before = torch.get_rng_state()
    device = this_device(torch.device("cpu"), "fp32")
    assert torch.equal(torch.get_rng_state(), before)
    assert device.peak > 1e8
    assert device.name.startswith("cpu")


def test_fp32_counts_as_tf32_only_where_torch_may_round(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100-SXM4-80GB")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert this_device(torch.device("cuda"), "fp32").peak == pytest.approx(19.5e12)
        torch.set_float32_matmul_precision("high")
        assert this_device(torch.device("cuda"), "fp32").peak == pytest.approx(156e12)
        assert this_device(torch.device("cuda"), "bf16").peak == pytest.approx(312e12)
    finally:
        torch.set_float32_matmul_precision(before)


def test_utilization_of_known_runs():
    # 156,468 tokens/s of a 125M model at 43.2 % of an A100, as MosaicML published it
    flops = 0.432 * 312e12 / 156_468
    assert utilization(156_468, flops, 312e12, 1) == pytest.approx(0.432)
    assert utilization(8 * 156_468, flops, 312e12, 8) == pytest.approx(0.432)
    assert utilization(156_468, flops, None, 1) is None
