import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bench.turns import Contestant

Player = Callable[[str, int], Contestant]


@pytest.fixture
def player(tmp_path: Path) -> Player:
    """Gives a function that starts a contestant, which writes its steps to a file of its name."""

    def start(name: str, steps: int = 100) -> Contestant:
        command = [sys.executable, "-m", "tests.unit.bench.player", str(tmp_path / name), str(steps)]
        return Contestant(command, os.environ)

    return start


def test_each_runs_only_in_its_turn(player: Player, tmp_path: Path) -> None:
    with player("a") as a, player("b") as b:
        assert list(tmp_path.iterdir()) == []
        assert a.play(2) > 0
        b.play(1)
        a.play(1)
        assert (tmp_path / "a").read_text() == "0 1 2 "
        assert (tmp_path / "b").read_text() == "0 "


def test_ended_it_unwinds_and_reports(player: Player, tmp_path: Path) -> None:
    with player("a") as a:
        a.play(2)
        assert a.end() == {"steps": 100}
    assert (tmp_path / "a").read_text() == "0 1 ended"


@pytest.mark.parametrize(
    ("name", "steps", "error"), [("a", 0, "EOFError"), ("a", 1, "EOFError"), ("absent/a", 9, "FileNotFoundError")]
)
def test_a_loop_that_ends_or_fails_says_so(
    player: Player, capfd: pytest.CaptureFixture[str], name: str, steps: int, error: str
) -> None:
    with pytest.raises(RuntimeError, match="before its time, with exit code 1"):
        player(name, steps).play(2)
    assert error in capfd.readouterr().err
