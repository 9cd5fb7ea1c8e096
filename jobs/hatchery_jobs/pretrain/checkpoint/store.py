"""Checkpoints: complete or not there at all.

A checkpoint is written to a temporary name, its files are made durable, its manifest with their hashes is written
last, then the folder is renamed. A folder without a valid manifest is skipped and reported, never trained from.

It holds the weights, the state of the optimizer and `RunState`. It holds no data position and no state of a random
generator: both are functions of the step (and the micro-batch), on any number of workers. The weights are a plain
safetensors file with transformers' names: with config.json and a tokenizer beside it, it is a model.
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
from hatchery_jobs.pretrain.checkpoint.snapshot import Snapshot
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime import log, sha256_file, storage_errors, sync_file, sync_folder, write_atomically

MANIFEST: Final = "manifest.json"
"""The done-marker of a checkpoint."""

WEIGHTS: Final = "model.safetensors"
"""The weights; the name under which transformers looks for them."""

OPTIMIZER: Final = "optimizer.pt"
"""The state of the optimizer."""

FILES: Final = (WEIGHTS, OPTIMIZER)
"""Files that the manifest has hashes of."""


class Manifest(Record):
    """What makes a folder a checkpoint."""

    state: RunState
    """Where the run was."""
    files: dict[str, str]
    """sha256 of each file."""


_SEAL_BYTES: Final = len(', "seal": ""}') + 64
"""Length of what `_sealed` adds, with the brace that was there."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    """Holds a folder for each."""
    keep: int
    """Newest ones that stay."""

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}"

    def save(self, state: RunState, snapshot: Snapshot) -> Path:
        """Writes a checkpoint, then removes the oldest ones beyond `keep` and any of a later step, which are torn or
        of a course that was left.

        Args:
            state: Where the run is.
            snapshot: Whole, contiguous tensors.

        Returns:
            The folder of the checkpoint.

        Raises:
            RetryableError: the store cannot be written or is full; the earlier checkpoints stay.
        """

        def _write(folder: Path) -> None:
            save_file(snapshot.weights, folder / WEIGHTS, metadata={"format": "pt"})
            torch.save(snapshot.optimizer, folder / OPTIMIZER)

        return self._complete(state, _write)

    def install(self, state: RunState, files: Path) -> Path:
        """Makes a checkpoint of the files of another one; they are moved where that needs no copy.

        Raises:
            RetryableError: the store cannot be written or is full.
        """

        def _write(folder: Path) -> None:
            for name in FILES:
                shutil.move(files / name, folder / name)

        return self._complete(state, _write)

    def _complete(self, state: RunState, write: Callable[[Path], None]) -> Path:
        with storage_errors(str(self.path(state.step))):
            try:
                return self._write(state, write)
            except (SafetensorError, RuntimeError) as error:  # what the two libraries make of a full disk
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
        manifest = Manifest(state=state, files={name: sha256_file(partial / name) for name in FILES})
        # pydantic's own JSON has null for a loss that is no number, and would not read it back
        write_atomically(partial / MANIFEST, _sealed(json.dumps(manifest.model_dump(by_alias=True)).encode()))
        shutil.rmtree(target, ignore_errors=True)  # one that was found torn, or of a course that was left
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
        """Removes the checkpoints of later steps: a run that goes back must not find them again."""
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            if folder > self.path(step):
                shutil.rmtree(folder)
        if self.folder.exists():
            sync_folder(self.folder)

    def newest(self) -> RunState | None:
        """State of the newest complete checkpoint; torn ones are reported."""
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                manifest = read_manifest(folder)
                wrong = next((n for n in FILES if sha256_file(folder / n) != manifest.files.get(n)), None)
                if wrong is None and self.path(manifest.state.step) == folder:
                    return manifest.state
            except (OSError, ValueError) as error:
                wrong = str(error).splitlines()[0]
            log("checkpoint-skipped", checkpoint=str(folder), wrong=wrong or "it is of another step")
        return None

    def load(self, step: int) -> Snapshot:
        """The snapshot of a complete checkpoint; its tensors are pages of the files, read when they are used.

        Raises:
            FileNotFoundError: there is none.
        """
        folder = self.path(step)
        optimizer = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
        return Snapshot(load_file(folder / WEIGHTS), optimizer)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not as it was written.
    """
    data = (folder / MANIFEST).read_bytes()
    if _sealed(data[:-_SEAL_BYTES] + b"}") != data:
        raise ValueError(f"{MANIFEST} is not as it was written")
    return Manifest.model_validate_json(data)


def _sealed(manifest: bytes) -> bytes:
    """A JSON object with the sha256 of its own text as its last field: also a changed digit of the state is found."""
    body = manifest[:-1]
    return body + b', "seal": "%s"}' % hashlib.sha256(body).hexdigest().encode()
