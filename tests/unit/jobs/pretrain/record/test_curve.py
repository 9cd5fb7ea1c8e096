"""The loss curve on a full disk, after truncation and after a resume."""

import errno
import os

import pytest

from hatchery_jobs.pretrain.record.curve import Curve, read_curve


@pytest.fixture
def full(monkeypatch):
    """A disk with room for so many bytes more."""
    room = [10**9]
    write = os.pwrite

    def bounded(file, data, offset):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: room[0]], offset)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", bounded)
    return room


def test_lines_wait_in_memory_while_the_disk_is_full_and_none_is_torn(tmp_path, full):
    curve = Curve(tmp_path / "c", 0)
    curve.add(1, loss=1.0)
    full[0] = 7  # less than a line
    curve.add(2, loss=2.0)
    curve.add(3, loss=3.0)
    with pytest.raises(OSError, match="No space"):
        curve.sync()
    full[0] = 10**9
    curve.add(4, loss=4.0)
    assert curve.sync() == (tmp_path / "c").stat().st_size
    assert [line["step"] for line in read_curve(tmp_path / "c")] == [1, 2, 3, 4]


def test_a_resumed_curve_forgets_what_came_after_its_checkpoint(tmp_path):
    curve = Curve(tmp_path / "c", 0)
    curve.add(1, loss=1.0)
    kept = curve.sync()
    curve.add(2, loss=2.0)
    curve.close()
    again = Curve(tmp_path / "c", kept)
    again.add(2, loss=2.5)
    again.cut(kept)
    again.add(2, loss=2.25)
    again.close()
    assert read_curve(tmp_path / "c") == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.25}]
