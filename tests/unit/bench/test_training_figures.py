from pathlib import Path

import pytest
from tests.bench.library import VALIDATION_EVERY, sources, split
from tests.bench.pretrain import tokens_per_second
from tests.bench.pretrain_contestants import Ours

from hatchery_jobs.pretrain.state import Times


def test_shares_are_of_whole_iterations_and_leave_out_the_first() -> None:
    slow = Times(data=9.0, compute=0.0, optimizer=0.0, total=9.0)
    usual = Times(data=1.0, compute=6.0, optimizer=2.0, total=9.5)
    ours = Ours(worker=None, iterations=[9.0] * 3 + [10.0] * 2, times=[slow] * 3 + [usual] * 3)  # type: ignore[arg-type]
    assert ours.shares() == (pytest.approx(0.2), pytest.approx(0.1))


def test_the_speed_of_a_turn_leaves_out_the_pause_before_its_first_update() -> None:
    times = [1.0, 3.0, 51.0, 53.0, 55.0, 57.0]  # the turn began at 50
    updates = [{"event": "update", "step": n, "time": time, "tokens": 50} for n, time in enumerate(times)]
    assert tokens_per_second(updates, 50.0) == 25.0


def test_sources_leave_out_tests_below_the_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "test"
    for name in ("b.py", "a/b.py", "test/c.py", "site-packages/d.py", "a/e.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    assert sources(root) == ["a/b.py", "b.py"]


def test_every_so_many_files_are_measured() -> None:
    texts = [str(number) for number in range(VALIDATION_EVERY * 2 + 1)]
    train, validation = split(texts)
    assert validation == ["0", "20", "40"]
    assert sorted(train + validation, key=int) == texts
