"""Experiment trackers of the lead: TensorBoard and Weights & Biases.

A tracker never stops a run: one that fails is logged once and dropped. After a resume TensorBoard drops the points
beyond the checkpoint. Weights & Biases accepts each step only once, so its first points stay; the repeated updates
would give the same ones.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from hatchery_api.contract import JobInput
from hatchery_api.resources.pretrain import PretrainRunSpec, WandB
from hatchery_jobs.pretrain.record import Sample
from hatchery_jobs.pretrain.state import RunState, Update, perplexity
from hatchery_jobs.pretrain.telemetry.hardware import RunInfo
from hatchery_jobs.runtime import log

FLUSH_SECONDS: Final = 30
"""Flush interval of TensorBoard's file."""

INIT_SECONDS: Final = 60.0
"""Longest wait for the Weights & Biases server; after that the run is logged offline."""

FINISH_SECONDS: Final = 20.0
"""Longest wait for the last points to be uploaded; it must fit into a pod's grace period."""

KEY: Final = "WANDB_API_KEY"
"""Environment variable with the API key of Weights & Biases."""


class Tracker(Protocol):
    """An experiment tracker."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs the values of a step."""

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Logs the samples of a step."""

    def rewind(self, step: int) -> None:
        """The run rolled back to a step: later points will be logged again."""

    def close(self) -> None:
        """Flushes and closes."""


class Trackers:
    """All trackers of a run."""

    def __init__(self, openers: Mapping[str, Callable[[], Tracker]]) -> None:
        """Opens the trackers; the keys are their names."""
        self._trackers: dict[str, Tracker] = {}
        for name, opener in openers.items():
            try:
                self._trackers[name] = opener()
            except Exception as error:  # noqa: BLE001 - a tracker must not stop training
                log("tracker-failed", tracker=name, error=str(error))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs the values of a step."""
        self._each(lambda tracker: tracker.log(step, numbers))

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Logs the samples of a step."""
        self._each(lambda tracker: tracker.log_samples(samples))

    def rewind(self, step: int) -> None:
        """The run rolled back to a step."""
        self._each(lambda tracker: tracker.rewind(step))

    def close(self) -> None:
        """Flushes and closes."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # noqa: BLE001 - a tracker must not stop training
                del self._trackers[name]
                log("tracker-failed", tracker=name, error=str(error))


def open_trackers(
    job: JobInput[PretrainRunSpec], info: RunInfo, state: RunState, folder: Path, cache: Path
) -> Trackers:
    """Opens the trackers that `spec.tracking` enables.

    Args:
        job: The pod's input.
        info: Logged with the spec as the run's configuration.
        state: The state that the run starts or resumes from.
        folder: For the trackers' files, kept across restarts.
        cache: For files that may be lost.
    """
    tracking = job.spec.tracking
    config = {**job.spec.wire(), "parameters": info.parameters, "workers": info.workers, "device": info.device.name}
    openers: dict[str, Callable[[], Tracker]] = {}
    if tracking.tensorboard:
        openers["tensorboard"] = lambda: TensorBoard(folder / "tensorboard", state.step)
    if (wandb := tracking.wandb) is not None:
        openers["wandb"] = lambda: WeightsAndBiases(wandb, job, config, folder, cache)
    return Trackers(openers)


def update_values(state: RunState, update: Update, info: RunInfo, samples_per_step: int) -> dict[str, float]:
    """What trackers log of an update."""
    times = update.times
    numbers = {
        "lr": update.rate,
        "samples": float(state.step * samples_per_step),
        "steps": float(state.step),
        "loss/train": update.loss,
        "grad_norm": update.norm,
        "tokens_per_second": info.tokens_per_second(1, times.total),
        "mfu": info.mfu(1, times.total),
        "time/step": times.total,
        "time/data": times.data,
        "time/compute": times.compute,
        "time/optimizer": times.optimizer,
        "time/other": times.other,
    }
    return {name: number for name, number in numbers.items() if number is not None}


def validation_values(loss: float, bits_per_byte: float | None) -> dict[str, float]:
    """What trackers log of a validation."""
    numbers = {"loss/eval": loss, "perplexity": perplexity(loss), "bits_per_byte": bits_per_byte}
    return {name: number for name, number in numbers.items() if number is not None}


class TensorBoard:
    """TensorBoard event files in a folder, one per start of the workers."""

    def __init__(self, folder: Path, step: int) -> None:
        """Continues after a step."""
        self._folder = folder
        self._open(step)

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # without a checkpoint the run starts again with the validation before the first update
        purge = step + 1 if step > 0 else 0
        self._writer = SummaryWriter(str(self._folder), purge_step=purge, flush_secs=FLUSH_SECONDS)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs the values of a step."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Logs the samples of a step, with prompts in bold."""
        for number, sample in enumerate(samples):
            self._writer.add_text(f"samples/{number}", f"**{sample.prompt}**{sample.text}", sample.step)

    def rewind(self, step: int) -> None:
        """Starts a new file that makes TensorBoard drop the points after a step."""
        self._writer.close()
        self._open(step)

    def close(self) -> None:
        """Flushes and closes."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases, the same after every restart: its id is the resource's UID."""

    def __init__(
        self, settings: WandB, job: JobInput[PretrainRunSpec], config: Mapping[str, Any], folder: Path, cache: Path
    ) -> None:
        """Resumes the run if the server has it; without server or key it is logged offline."""
        _configure(cache)
        online = settings.mode == "online" or (settings.mode == "auto" and bool(os.environ.get(KEY, "").strip()))
        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        run = {"project": settings.project, "entity": settings.entity, "id": job.uid, "name": job.name}
        try:
            self._run = _init("online" if online else "offline", settings, {**run, "config": config}, folder)
        except Exception as error:
            if not online:
                raise
            log("wandb-offline", error=str(error))
            _teardown()  # otherwise it holds on to the run that failed to start
            self._run = _init("offline", settings, {**run, "config": config}, folder)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs the values of a step, which must not be below the last one."""
        self._run.log(dict(numbers), step=step)

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Logs the samples of a step as a table."""
        import wandb

        if samples:
            table = wandb.Table(columns=["prompt", "text"], data=[[s.prompt, s.text] for s in samples])
            self._run.log({"samples/texts": table}, step=samples[0].step)

    def rewind(self, step: int) -> None:
        """Does nothing: each step is accepted only once."""

    def close(self) -> None:
        """Uploads what is left, for a bounded time: an unavailable server must not keep a pod from exiting."""
        upload = threading.Thread(target=self._finish, daemon=True)
        upload.start()
        upload.join(FINISH_SECONDS)
        if upload.is_alive():
            log("wandb-not-finished", seconds=FINISH_SECONDS)

    def _finish(self) -> None:
        self._run.finish()
        _teardown()  # its files are complete only when its service has exited


def _configure(cache: Path) -> None:
    """Sets what the library reads at import: no error reporting, and folders that a pod may write."""
    places = {name: str(cache) for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")}
    os.environ.update(places | {"WANDB_ERROR_REPORTING": "false", "WANDB_ARTIFACT_DIR": str(cache)})


def _teardown() -> None:
    """Stops the library's service process once it has finished its work."""
    import wandb

    wandb.teardown()


def _init(mode: str, settings: WandB, run: Mapping[str, Any], folder: Path) -> Any:
    import wandb

    server: dict[str, Any] = {"base_url": str(settings.base_url)} if settings.base_url else {}
    return wandb.init(
        **run,
        dir=str(folder),
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(
            mode=mode,
            # log only what the spec asks for: no code, no console output, no machine data
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
            **server,
        ),
    )
