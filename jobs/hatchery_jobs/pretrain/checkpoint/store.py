"""The checkpoint store: each checkpoint is complete or absent.

A checkpoint is written under a temporary name. Its files are synced, the manifest with their hashes is written last,
then the folder is renamed. A folder without a valid manifest is logged and skipped, never trained from.

A checkpoint holds the weights, the optimizer state and `RunState`, but no data position and no generator state: both
are functions of the step (and the micro-batch), on any number of workers. The weights are a plain safetensors file with
transformers' names: together with config.json and a tokenizer it is a loadable model.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hatchery_api.base import Record
from hatchery_jobs.pretrain.checkpoint.snapshot import TrainingSnapshot
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import log, sha256_file, storage_errors, sync_file, sync_folder, write_atomically

CHECKPOINT_MANIFEST: Final = "manifest.json"
"""The done-marker of a checkpoint."""

WEIGHTS: Final = "model.safetensors"
"""The weights, under the name that transformers expects."""

OPTIMIZER: Final = "optimizer.pt"
"""The optimizer state."""

FILES: Final = (WEIGHTS, OPTIMIZER)
"""Files whose hashes the manifest holds."""


class CheckpointManifest(Record):
    """The manifest of a complete checkpoint."""

    state: RunState
    """The run's state at its step."""
    files: dict[str, str]
    """sha256 of each file."""


_SEAL_BYTES: Final = len(', "seal": ""}') + 64
"""Bytes that `_sealed` appends, including the closing brace."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    """Parent of one folder per checkpoint."""
    keep: int
    """Newest checkpoints to keep."""

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}"

    def save(self, state: RunState, snapshot: TrainingSnapshot) -> Path:
        """Writes a checkpoint, then removes the oldest ones beyond `keep` and those of later steps, which are torn or
        were rolled back.

        Args:
            state: The run's state.
            snapshot: Full, contiguous tensors.

        Returns:
            The folder of the checkpoint.

        Raises:
            RetryableError: the store is full or not writable; earlier checkpoints stay.
        """

        def _write(folder: Path) -> None:
            save_file(snapshot.weights, folder / WEIGHTS, metadata={"format": "pt"})
            torch.save(snapshot.optimizer, folder / OPTIMIZER)

        return self._complete(state, _write)

    def install(self, state: RunState, files: Path) -> Path:
        """Makes a checkpoint of the weights and optimizer in the folder `files`, which are moved.

        Raises:
            RetryableError: the store is full or not writable.
        """

        def _write(folder: Path) -> None:
            for name in FILES:
                shutil.move(files / name, folder / name)

        return self._complete(state, _write)

    def _complete(self, state: RunState, write: Callable[[Path], None]) -> Path:
        with storage_errors(str(self.path(state.step))):
            try:
                return self._write(state, write)
            except (SafetensorError, RuntimeError) as error:  # how the two libraries report a full disk
                raise OSError(str(error)) from error

    def _write(self, state: RunState, write: Callable[[Path], None]) -> Path:
        for stale in self.folder.glob(".step-*"):
            shutil.rmtree(stale)
        target = self.path(state.step)
        partial = self.folder / f".{target.name}.partial"
        partial.mkdir(parents=True)
        write(partial)
        for name in FILES:
            sync_file(partial / name)
        manifest = CheckpointManifest(state=state, files={name: sha256_file(partial / name) for name in FILES})
        # pydantic's JSON writes a NaN loss as null, which does not validate when it is read
        write_atomically(
            partial / CHECKPOINT_MANIFEST, _sealed(json.dumps(manifest.model_dump(by_alias=True)).encode())
        )
        shutil.rmtree(target, ignore_errors=True)  # torn, or rolled back
        partial.replace(target)
        sync_folder(self.folder)
        self._retain(target)
        return target

    def _retain(self, newest: Path) -> None:
        folders = sorted(self.folder.glob("step-*"))
        kept = [folder for folder in folders if folder <= newest][-self.keep :]
        for folder in folders:
            if folder not in kept:
                shutil.rmtree(folder)

    def discard_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, so that a run that rolled back does not find them again."""
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            if folder > self.path(step):
                shutil.rmtree(folder)
        if self.folder.exists():
            sync_folder(self.folder)

    def newest(self) -> RunState | None:
        """State of the newest complete checkpoint; torn ones are logged."""
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                manifest = read_checkpoint_manifest(folder)
                wrong = next((n for n in FILES if sha256_file(folder / n) != manifest.files.get(n)), None)
                if wrong is None and self.path(manifest.state.step) == folder:
                    return manifest.state
            except (OSError, ValueError) as error:
                wrong = str(error).splitlines()[0]
            log("checkpoint-skipped", checkpoint=str(folder), wrong=wrong or "it is of another step")
        return None

    def load(self, step: int) -> TrainingSnapshot:
        """The snapshot of a complete checkpoint; its tensors are memory-mapped.

        Raises:
            FileNotFoundError: there is no such checkpoint.
        """
        folder = self.path(step)
        optimizer = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
        return TrainingSnapshot(load_file(folder / WEIGHTS), optimizer)

    def export_weights(self, step: int, folder: Path) -> None:
        """Copies the weights of a checkpoint into a folder, under the name that transformers expects."""
        shutil.copyfile(self.path(step) / WEIGHTS, folder / WEIGHTS)


def read_checkpoint_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of a checkpoint.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it was changed after it was written.
    """
    data = (folder / CHECKPOINT_MANIFEST).read_bytes()
    if _sealed(data[:-_SEAL_BYTES] + b"}") != data:
        raise ValueError(f"{CHECKPOINT_MANIFEST} does not match its seal")
    return CheckpointManifest.model_validate_json(data)


def _sealed(manifest: bytes) -> bytes:
    """Appends the sha256 of a JSON object's own text as its last field, which reveals even a changed digit."""
    body = manifest[:-1]
    return body + b', "seal": "%s"}' % hashlib.sha256(body).hexdigest().encode()
