"""A contestant that writes down what it does: `python -m tests.unit.bench.player FILE STEPS`."""

import sys
from pathlib import Path

from tests.bench.turns import Step, take_turns


def main(file: Path, steps: int) -> None:
    """Takes so many steps at most."""

    def train(step: Step) -> None:
        try:
            for number in range(steps):
                step()
                print("said in between")
                with file.open("a") as out:
                    out.write(f"{number} ")
        finally:
            with file.open("a") as out:
                out.write("ended")

    take_turns(train, lambda: {"steps": steps})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
