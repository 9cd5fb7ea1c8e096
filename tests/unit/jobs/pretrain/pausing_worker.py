"""A worker that waits before one update until the launcher stops it, so that it stops at a known step."""

import os
import sys
import threading
from pathlib import Path

from hatchery_jobs.pretrain.launcher.protocol import Flag, WorkerSpec
from hatchery_jobs.pretrain.training import loop

PAUSE_STEP = "HATCHERY_PAUSE_STEP"
"""Variable with the step before which it waits."""
PATIENCE_SECONDS = 100


def main(path: Path) -> int:
    """Entry point of a worker; the others wait for the lead in the update's all-reduce."""
    worker = WorkerSpec.model_validate_json(path.read_bytes())
    learn = loop.learn

    def learn_when_asked(run):
        if run.state.step == int(os.environ[PAUSE_STEP]):
            never = threading.Event()
            for _ in range(PATIENCE_SECONDS * 20):
                if worker.flag(Flag.STOP).exists():
                    break
                never.wait(0.05)
        return learn(run)

    loop.learn = learn_when_asked
    return loop.main(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
