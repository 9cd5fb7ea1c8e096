"""Checkpoints: complete or not there at all.

A checkpoint is written to a temporary name, its files are made durable, its manifest with their hashes is written
last, then the folder is renamed. A folder without a valid manifest is skipped and reported, never trained from.

It holds the weights, the state of the optimizer and `RunState`. It holds no learning rate, no data position and no
state of a random generator: all three are functions of the step (and the micro-batch), on any number of workers.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from hatchery_api.base import Record
from hatchery_jobs.artifacts import sha256_file, storage_errors, sync_folder, write_atomically
from hatchery_jobs.logs import log
from hatchery_jobs.pretrain.state import RunState

MANIFEST: Final = "manifest.json"
"""The done-marker of a checkpoint."""

WEIGHTS: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.pt"


class Manifest(Record):
    """What makes a folder a checkpoint."""

    state: RunState
    """Where the run was."""
    files: dict[str, str]
    """sha256 of each file."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    keep: int

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}"

    def save(self, state: RunState, model: torch.nn.Module, optimizer: dict[str, object]) -> None:
        """Writes a checkpoint and then removes the oldest ones beyond `keep`.

        Raises:
            RetryableError: the store cannot be written or is full; the earlier checkpoints stay.
        """
        with storage_errors(str(self.path(state.step))):
            try:
                self._save(state, model, optimizer)
            except (SafetensorError, RuntimeError) as error:  # what the two libraries make of a full disk
                raise OSError(str(error)) from error

    def _save(self, state: RunState, model: torch.nn.Module, optimizer: dict[str, object]) -> None:
        for stale in self.folder.glob(".step-*"):
            shutil.rmtree(stale)
        target = self.path(state.step)
        partial = self.folder / f".{target.name}.partial"
        partial.mkdir(parents=True)
        save_model(model, str(partial / WEIGHTS))
        torch.save(optimizer, partial / OPTIMIZER)
        for name in (WEIGHTS, OPTIMIZER):
            _sync_file(partial / name)
        files = {name: sha256_file(partial / name) for name in (WEIGHTS, OPTIMIZER)}
        write_atomically(partial / MANIFEST, Manifest(state=state, files=files).model_dump_json(by_alias=True).encode())
        shutil.rmtree(target, ignore_errors=True)  # only ever one that was found torn
        partial.replace(target)
        sync_folder(self.folder)
        for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
            shutil.rmtree(old)

    def newest(self) -> RunState | None:
        """State of the newest complete checkpoint; torn ones are reported."""
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                manifest = self._manifest(folder)
                wrong = next((n for n, sha in manifest.files.items() if sha256_file(folder / n) != sha), None)
            except (OSError, ValidationError) as error:
                wrong = str(error).splitlines()[0]
            else:
                if wrong is None:
                    return manifest.state
            log("checkpoint-skipped", checkpoint=str(folder), wrong=wrong)
        return None

    def load(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
        """Loads a complete checkpoint into model and optimizer."""
        folder = self.path(step)
        load_model(model, str(folder / WEIGHTS))
        optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True))
        return self._manifest(folder).state

    @staticmethod
    def _manifest(folder: Path) -> Manifest:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
