"""A snapshot: weights and optimizer of a run, in one format for DDP and FSDP and for any number of workers.

Tensors go by the name of their parameter in the unwrapped model, which is transformers' own name. A weight that the
model uses in several places is there once, under its first name.
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
from torch.distributed.tensor import DTensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from hatchery_api.conditions import Reason
from hatchery_jobs.runtime import SpecError

_WHOLE: Final = StateDictOptions(full_state_dict=True)
"""Every worker is given whole tensors and takes its part of them."""


@dataclass(frozen=True)
class Snapshot:
    """Weights and optimizer at one step."""

    weights: dict[str, torch.Tensor]
    """By name in the unwrapped model; a shared weight once, under its first name."""
    optimizer: dict[str, Any]
    """`state` (parameter's name → name → value) and `param_groups` (whose `params` are names), as
    torch.distributed.checkpoint.state_dict has it; empty before the first update."""


def gather(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """The state of an unwrapped model and its optimizer, as it is, not a copy: the next update changes it.

    With FSDP its tensors are this worker's parts (`DTensor`); `whole` makes them whole, on all workers together.
    """
    # An optimizer without state would be given one by a made-up update, which counts as its first.
    state = get_optimizer_state_dict(model, optimizer) if optimizer.state else {}
    first = _first_names(model)
    weights = {name: tensor for name, tensor in get_model_state_dict(model).items() if first[name] == name}
    return Snapshot(weights, state)


def apply(snapshot: Snapshot, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copies a snapshot of whole tensors into an unwrapped model and its optimizer; every worker calls it.

    Raises:
        SpecError: it is of another model.
    """
    first = _first_names(model)
    _check_fit(snapshot.weights, model, first)
    set_model_state_dict(model, {name: snapshot.weights[first[name]] for name in first}, options=_WHOLE)
    if snapshot.optimizer:
        # the optimizer keeps the tensors it is given, and those may be pages of a file
        leaves, spec = tree_flatten(snapshot.optimizer)
        copies = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        set_optimizer_state_dict(model, optimizer, tree_unflatten(copies, spec), options=_WHOLE)


def contribute(snapshot: Snapshot) -> None:
    """Gives this worker's parts to the worker that copies the snapshot at the same time; nothing to do without FSDP."""
    for tensor in Leaves.of(snapshot).tensors():
        whole(tensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor of which this worker may hold a part; all workers ask for it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@dataclass(frozen=True)
class Leaves:
    """A snapshot as a flat list, so that its tensors can be exchanged for others."""

    values: list[Any]
    """Tensors and plain values, in an order that is the same on every worker."""
    spec: TreeSpec
    """What makes a snapshot of them again."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Leaves":
        """The flat form of a snapshot."""
        return cls(*tree_flatten((snapshot.weights, snapshot.optimizer)))

    def tensors(self) -> Iterator[torch.Tensor]:
        """The tensors, in order."""
        return (value for value in self.values if isinstance(value, torch.Tensor))

    def with_tensors(self, tensors: list[torch.Tensor]) -> Snapshot:
        """The snapshot with other tensors in the places of its own."""
        rest = iter(tensors)
        values = [next(rest) if isinstance(value, torch.Tensor) else value for value in self.values]
        return Snapshot(*tree_unflatten(values, self.spec))


def _first_names(model: torch.nn.Module) -> dict[str, str]:
    """Name of each tensor of the state → first name of the same tensor; they differ where weights are shared."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}


def _check_fit(weights: Mapping[str, torch.Tensor], model: torch.nn.Module, first: Mapping[str, str]) -> None:
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items() if first[name] == name}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        raise SpecError(
            Reason.INVALID_SPEC,
            f"The checkpoint is of another model: {name} has shape {given.get(name, 'none')}, spec.model asks for "
            f"{wanted.get(name, 'none')} ({len(wrong)} such tensors); give spec.model the sizes of the run that wrote "
            "it, or name another checkpoint in spec.checkpoint.resumeFrom",
        )
