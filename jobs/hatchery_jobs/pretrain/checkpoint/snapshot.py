"""Snapshots: weights and optimizer state of a run, in one format for DDP and FSDP and for any number of workers.

A tensor has the name of its parameter in the unwrapped model, which is transformers' own name. A tied weight is there
once, under its first name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.distributed import full_tensor
from hatchery_jobs.runtime import SpecError

_FULL: Final = StateDictOptions(full_state_dict=True)
"""Every worker receives full tensors and keeps its shard of them."""


@dataclass(frozen=True)
class TrainingSnapshot:
    """Weights and optimizer state at one step."""

    weights: dict[str, torch.Tensor]
    """By name in the unwrapped model; a tied weight once, under its first name."""
    optimizer: dict[str, Any]
    """`state` (parameter → name → value) and `param_groups` (whose `params` are names), the format of
    torch.distributed.checkpoint.state_dict; empty before the first update."""


def take_snapshot(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> TrainingSnapshot:
    """References, not copies, of the state of an unwrapped model and its optimizer: the next update changes it.

    With FSDP the tensors are this worker's shards (`DTensor`); `full_tensor` gathers them, on all workers together.
    """
    # torch would initialize an empty optimizer state with a fake update, which counts as the first one
    state = get_optimizer_state_dict(model, optimizer) if optimizer.state else {}
    first = _first_names(model)
    weights = {name: tensor for name, tensor in get_model_state_dict(model).items() if first[name] == name}
    return TrainingSnapshot(weights, state)


def restore_snapshot(snapshot: TrainingSnapshot, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copies a snapshot of full tensors into an unwrapped model and its optimizer; every worker calls it.

    Raises:
        SpecError: the snapshot is of another model.
    """
    first = _first_names(model)
    _check_fit(snapshot.weights, model, first)
    set_model_state_dict(model, {name: snapshot.weights[first[name]] for name in first}, options=_FULL)
    if snapshot.optimizer:
        # the optimizer keeps these tensors, which may be memory-mapped files
        leaves, spec = tree_flatten(snapshot.optimizer)
        copies = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        set_optimizer_state_dict(model, optimizer, tree_unflatten(copies, spec), options=_FULL)


def contribute_shards(snapshot: TrainingSnapshot) -> None:
    """Takes part in gathering full tensors while the lead copies the snapshot; without FSDP it does nothing."""
    for tensor in Leaves.of(snapshot).tensors():
        full_tensor(tensor)


@dataclass(frozen=True)
class Leaves:
    """A snapshot as a flat list, whose tensors can be replaced."""

    values: list[Any]
    """Tensors and plain values, in an order that is the same on every worker."""
    spec: TreeSpec
    """Structure that rebuilds a snapshot from them."""

    @classmethod
    def of(cls, snapshot: TrainingSnapshot) -> "Leaves":
        """Flattens a snapshot."""
        return cls(*tree_flatten((snapshot.weights, snapshot.optimizer)))

    def tensors(self) -> Iterator[torch.Tensor]:
        """The tensors, in order."""
        return (value for value in self.values if isinstance(value, torch.Tensor))

    def with_tensors(self, tensors: list[torch.Tensor]) -> TrainingSnapshot:
        """The snapshot with its tensors replaced, in order."""
        replacements = iter(tensors)
        values = [next(replacements) if isinstance(value, torch.Tensor) else value for value in self.values]
        return TrainingSnapshot(*tree_unflatten(values, self.spec))


def _first_names(model: torch.nn.Module) -> dict[str, str]:
    """Name of each tensor of the state → first name of the same tensor; they differ for tied weights."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}


def _check_fit(weights: Mapping[str, torch.Tensor], model: torch.nn.Module, first: Mapping[str, str]) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if first[name] == name}
    actual = {name: tuple(value.shape) for name, value in weights.items()}
    different = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if different:
        name = different[0]
        raise SpecError(
            Reason.INVALID_SPEC,
            f"the checkpoint is of another model: {name} has shape {actual.get(name, 'none')}, spec.model asks for "
            f"{expected.get(name, 'none')} ({len(different)} such tensors); give spec.model the sizes of the run that "
            "wrote it, or name another checkpoint in spec.checkpoint.resumeFrom",
        )
