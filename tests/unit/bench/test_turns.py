import pytest
from tests.bench.turns import Contestant


def test_each_runs_only_in_its_turn() -> None:
    played: list[str] = []

    def loop(name: str):
        def train(step) -> None:
            while True:
                step()
                played.append(name)

        return train

    with Contestant(loop("a")) as a, Contestant(loop("b")) as b:
        assert played == []
        a.play(2)
        b.play(1)
        a.play(1)
        assert played == ["a", "a", "b", "a"]


def test_cpu_time_is_that_of_the_turn() -> None:
    def train(step) -> None:
        while True:
            step()
            sum(range(200_000))

    with Contestant(train) as contestant:
        assert contestant.play(3) > 0


@pytest.mark.parametrize("steps", [0, 1])
def test_a_loop_that_fails_says_so(steps: int) -> None:
    def train(step) -> None:
        for _ in range(steps):
            step()
        raise ValueError("broken")

    def measure() -> None:
        Contestant(train).play(2)

    with pytest.raises(RuntimeError, match="before its time") as caught:
        measure()
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_loop_that_ends_early_is_an_error() -> None:
    contestant = Contestant(lambda step: step())
    with pytest.raises(RuntimeError, match="before its time"):
        contestant.play(2)


def test_leaving_ends_the_loop() -> None:
    ended: list[bool] = []

    def train(step) -> None:
        try:
            while True:
                step()
        finally:
            ended.append(True)

    with Contestant(train):
        pass
    assert ended == [True]
