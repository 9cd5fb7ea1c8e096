"""TensorBoard and Weights & Biases, as the lead worker feeds them.

A tracker never stops a run: one that fails is reported once and left out from then on. After a resume TensorBoard
forgets the points beyond the checkpoint. Weights & Biases takes no step twice: there the first points stay, which the
repeated updates would only repeat.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainRunSpec, WandB
from hatchery_jobs.pretrain.state import RunState, Update, perplexity
from hatchery_jobs.pretrain.telemetry.run_info import RunInfo
from hatchery_jobs.pretrain.training.generate import Sample
from hatchery_jobs.runtime import log

FLUSH_SECONDS: Final = 30
"""Longest time until TensorBoard's file has a point."""

INIT_SECONDS: Final = 60.0
"""Longest wait for a server of Weights & Biases; after that the run is logged offline."""

FINISH_SECONDS: Final = 20.0
"""Longest wait for the last points to be sent; it must fit into a pod's grace period."""

KEY: Final = "WANDB_API_KEY"
"""Environment variable with the key of Weights & Biases."""


class Tracker(Protocol):
    """Where numbers by step are sent."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step."""

    def write(self, samples: Sequence[Sample]) -> None:
        """Texts of a step."""

    def rewind(self, step: int) -> None:
        """The run went back to a step: later points will come again."""

    def close(self) -> None:
        """Sends what is left."""


class Trackers:
    """All trackers of a run."""

    def __init__(self, openers: Mapping[str, Callable[[], Tracker]]) -> None:
        """Opens trackers by name."""
        self._trackers: dict[str, Tracker] = {}
        for name, opener in openers.items():
            try:
                self._trackers[name] = opener()
            except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
                log("tracker-failed", tracker=name, error=str(error))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._each(lambda tracker: tracker.log(step, numbers))

    def write(self, samples: Sequence[Sample]) -> None:
        """Texts of a step."""
        self._each(lambda tracker: tracker.write(samples))

    def rewind(self, step: int) -> None:
        """The run went back to a step."""
        self._each(lambda tracker: tracker.rewind(step))

    def close(self) -> None:
        """Sends what is left."""
        self._each(lambda tracker: tracker.close())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
                del self._trackers[name]
                log("tracker-failed", tracker=name, error=str(error))


def open_trackers(
    job: JobInput[PretrainRunSpec], setup: RunInfo, state: RunState, folder: Path, cache: Path
) -> Trackers:
    """The trackers that a spec asks for.

    Args:
        job: whose run it is.
        setup: what trains; goes to the trackers with the spec.
        state: where the run begins or goes on.
        folder: for the trackers' files, kept across restarts.
        cache: for what need not be kept.
    """
    tracking = job.spec.tracking
    config = {**job.spec.wire(), "parameters": setup.parameters, "workers": setup.workers, "device": setup.device.name}
    openers: dict[str, Callable[[], Tracker]] = {}
    if tracking.tensorboard:
        openers["tensorboard"] = lambda: TensorBoard(folder / "tensorboard", state.step)
    if (wandb := tracking.wandb) is not None:
        openers["wandb"] = lambda: WeightsAndBiases(wandb, job, config, folder, cache)
    return Trackers(openers)


def update_numbers(state: RunState, update: Update, setup: RunInfo, samples_per_step: int) -> dict[str, float]:
    """What trackers are told of an update."""
    times = update.times
    numbers = {
        "lr": update.rate,
        "samples": float(state.step * samples_per_step),
        "steps": float(state.step),
        "loss/train": update.loss,
        "grad_norm": update.norm,
        "tokens_per_second": setup.tokens_per_second(1, times.total),
        "mfu": setup.mfu(1, times.total),
        "time/step": times.total,
        "time/data": times.data,
        "time/compute": times.compute,
        "time/optimizer": times.optimizer,
        "time/other": times.other,
    }
    return {name: number for name, number in numbers.items() if number is not None}


def measured_numbers(loss: float, bits_per_byte: float | None) -> dict[str, float]:
    """What trackers are told of a measurement on the validation split."""
    numbers = {"loss/eval": loss, "perplexity": perplexity(loss), "bits_per_byte": bits_per_byte}
    return {name: number for name, number in numbers.items() if number is not None}


class TensorBoard:
    """Event files in a folder, one for each time the workers began."""

    def __init__(self, folder: Path, step: int) -> None:
        """Goes on after a step."""
        self._folder = folder
        self._open(step)

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # a run without checkpoint begins again with the measurement before the first update
        purge = step + 1 if step > 0 else 0
        self._writer = SummaryWriter(str(self._folder), purge_step=purge, flush_secs=FLUSH_SECONDS)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)

    def write(self, samples: Sequence[Sample]) -> None:
        """Texts of a step, prompts in bold."""
        for number, sample in enumerate(samples):
            self._writer.add_text(f"samples/{number}", f"**{sample.prompt}**{sample.text}", sample.step)

    def rewind(self, step: int) -> None:
        """Begins a file that makes readers forget the points after a step."""
        self._writer.close()
        self._open(step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases, the same after every restart: its id is the resource's."""

    def __init__(
        self, settings: WandB, job: JobInput[PretrainRunSpec], config: Mapping[str, Any], folder: Path, cache: Path
    ) -> None:
        """Goes on with the run where its server knows it; without server or key it is logged to files."""
        _settle(cache)
        online = settings.mode == "online" or (settings.mode == "auto" and bool(os.environ.get(KEY, "").strip()))
        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        wanted = {"project": settings.project, "entity": settings.entity, "id": job.uid, "name": job.name}
        try:
            self._run = _begin("online" if online else "offline", settings, {**wanted, "config": config}, folder)
        except Exception as error:
            if not online:
                raise
            log("wandb-offline", error=str(error))
            _end_service()  # it would not let go of a run that it could not begin
            self._run = _begin("offline", settings, {**wanted, "config": config}, folder)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step; it must not be below the last one."""
        self._run.log(dict(numbers), step=step)

    def write(self, samples: Sequence[Sample]) -> None:
        """Texts of a step as a table."""
        import wandb

        if samples:
            table = wandb.Table(columns=["prompt", "text"], data=[[s.prompt, s.text] for s in samples])
            self._run.log({"samples/texts": table}, step=samples[0].step)

    def rewind(self, step: int) -> None:
        """Nothing: it takes no step twice."""

    def close(self) -> None:
        """Sends what is left, for a bounded time: a server that is away must not keep a pod from ending."""
        ending = threading.Thread(target=self._finish, daemon=True)
        ending.start()
        ending.join(FINISH_SECONDS)
        if ending.is_alive():
            log("wandb-not-finished", seconds=FINISH_SECONDS)

    def _finish(self) -> None:
        self._run.finish()
        _end_service()  # its files are complete only when it has ended


def _settle(cache: Path) -> None:
    """What the library reads when it is imported: it reports its errors to nobody, and writes where a pod may."""
    places = {name: str(cache) for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")}
    os.environ.update(places | {"WANDB_ERROR_REPORTING": "false", "WANDB_ARTIFACT_DIR": str(cache)})


def _end_service() -> None:
    """Ends the library's own process, after what it still has to do."""
    import wandb

    wandb.teardown()


def _begin(mode: str, settings: WandB, wanted: Mapping[str, Any], folder: Path) -> Any:
    import wandb

    own: dict[str, Any] = {"base_url": str(settings.base_url)} if settings.base_url else {}
    return wandb.init(
        **wanted,
        dir=str(folder),
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(
            mode=mode,
            # neither code, nor the console, nor the machine: what is logged is what the spec asks for
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            symlink=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=INIT_SECONDS,
            **own,
        ),
    )
