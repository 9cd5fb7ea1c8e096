"""A worker that stops at step 5 of a new run, and 5 steps after a resume."""

import sys
from pathlib import Path

from hatchery_jobs.pretrain.launcher.protocol import Flag, WorkerSpec
from hatchery_jobs.pretrain.training import loop

STEPS = 5


def main(path: Path) -> int:
    """Entry point of a worker."""
    worker = WorkerSpec.model_validate_json(path.read_bytes())
    learn, first = loop.learn, []

    def learn_until(run):
        first[:] = first or [run.state.step]
        if run.state.step == first[0] + STEPS - 1:
            worker.flag(Flag.STOP).touch()
        return learn(run)

    loop.learn = learn_until
    return loop.main(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
