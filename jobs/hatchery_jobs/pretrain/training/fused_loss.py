"""An output layer fused with the loss: during training and validation it returns the loss instead of logits.

Logits of a large vocabulary take more memory than the rest of a model, and more time to move than to compute. Here they
are computed for some positions at a time and reduced immediately to losses and gradients, so that neither logits nor
their gradients are ever held whole (Hsu et al. 2024, arXiv:2410.10989, section 3.2). Positions without a target are
skipped: in a masked model, six of seven. Shapes: N positions, C width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch

from hatchery_jobs.pretrain.objectives import IGNORED, Batch

CPU_ROWS: Final = 256
"""Positions per chunk on a CPU: the logits fit its cache, and the matrix product is still efficient."""

DEVICE_ROWS: Final = 2048
"""Positions per chunk on other devices: enough to keep them busy."""


class Head(torch.nn.Linear):
    """An output layer that returns logits or the loss."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Replaces a linear layer and takes its parameters."""
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.batch: Batch | None = None
        """The batch whose loss to return; None: return logits."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of hidden states (..., C), or the summed loss of a batch in nats, a scalar."""
        if self.batch is None:
            return super().forward(hidden)
        return _summed_loss(hidden, self, self.batch)

    def stay_uncompiled(self) -> None:
        """Excludes the layer from torch.compile, which would unroll chunks and recompile for each number of labels."""
        self.forward = torch.compiler.disable(self.forward)  # type: ignore[method-assign]


@dataclass(frozen=True)
class LossModel:
    """A model that returns the loss of a batch."""

    model: Any
    """The model as called: compiled, wrapped in DDP."""
    head: Head
    """Its output layer."""

    @classmethod
    def of(cls, model: Any, called: Any = None) -> "LossModel":
        """Wraps a transformers model with a `Head`; `called` is its compiled or DDP wrapper, if any."""
        return cls(model if called is None else called, model.get_output_embeddings())

    def __call__(self, batch: Batch, **options: Any) -> Any:
        """The model's output with the summed loss in nats in place of the logits."""
        self.head.batch = batch
        try:
            return self.model(**batch.inputs, **options)
        finally:
            self.head.batch = None


def _summed_loss(hidden: torch.Tensor, head: Head, batch: Batch) -> torch.Tensor:
    """Summed cross-entropy of the positions with a target."""
    states, labels = hidden.flatten(0, -2), batch.labels.flatten()
    if batch.targets < len(labels):
        # the number is known, which saves a device synchronisation
        targets = torch.nonzero_static(labels != IGNORED, size=batch.targets).squeeze(1)
        states, labels = states[targets], labels[targets]
    if not torch.is_grad_enabled():
        return _compute(_Products.of(states, head.weight), head.bias, labels, None)
    loss: torch.Tensor = _LinearCrossEntropy.apply(states, head.weight, head.bias, labels)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of states (N, C), weight (V, C), bias (V) or None and labels (N)."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        """The loss; also computes the gradients."""
        products = _Products.of(states, weight)
        gradients = _Gradients.of(products, bias)
        loss = _compute(products, bias, labels, gradients)
        ctx.dtypes = [None if given is None else given.dtype for given in (states, weight, bias)]
        ctx.save_for_backward(gradients.states, gradients.weight, gradients.bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of the forward pass times the gradient of the loss, in place: only one backward pass works."""
        saved = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*(None if some is None else some.mul_(outer[0]).to(dtype) for some, dtype in saved), None)


@dataclass(frozen=True)
class _Products:
    """The factors of the logits, in autocast's precision."""

    states: torch.Tensor
    """(N, C)."""
    weight: torch.Tensor
    """(V, C)."""

    @classmethod
    def of(cls, states: torch.Tensor, weight: torch.Tensor) -> "_Products":
        """Casts both."""
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
        return cls(states.to(dtype), weight.to(dtype))


@dataclass(frozen=True)
class _Gradients:
    """Gradients of the summed loss, accumulated over chunks."""

    states: torch.Tensor
    """(N, C), in the precision of the products."""
    weight: torch.Tensor
    """(V, C), in single precision, since it sums over many positions."""
    bias: torch.Tensor | None
    """(V), in single precision."""

    @classmethod
    def of(cls, products: _Products, bias: torch.Tensor | None) -> "_Gradients":
        """Zero gradients."""
        weight, bias = (
            None if given is None else torch.zeros_like(given, dtype=torch.float32) for given in (products.weight, bias)
        )
        return cls(torch.empty_like(products.states), weight, bias)

    def add(self, begin: int, products: _Products, logits: torch.Tensor) -> None:
        """Adds the contribution of a chunk that starts at `begin`, given the gradients of its logits (n, V)."""
        if self.bias is not None:
            self.bias.add_(logits.sum(dim=0))
        logits = logits.to(products.weight.dtype)
        torch.mm(logits, products.weight, out=self.states[begin : begin + len(logits)])
        if logits.dtype == self.weight.dtype:
            self.weight.addmm_(logits.t(), products.states)
        else:
            self.weight.add_(logits.t() @ products.states)


def _compute(
    products: _Products, bias: torch.Tensor | None, labels: torch.Tensor, gradients: _Gradients | None
) -> torch.Tensor:
    """The summed loss in single precision; fills `gradients` unless it is None."""
    device, count = labels.device.type, len(labels)
    rows = CPU_ROWS if device == "cpu" else DEVICE_ROWS
    losses = torch.empty(count, dtype=torch.float32, device=labels.device)
    with torch.autocast(device, enabled=False):
        for begin in range(0, count, rows):
            part = _Products(products.states[begin : begin + rows], products.weight)
            target = labels[begin : begin + rows, None]
            logits = torch.nn.functional.linear(part.states, part.weight).float()
            if bias is not None:
                logits.add_(bias)
            highest = logits.amax(dim=1, keepdim=True)
            own = logits.gather(1, target)
            total = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
            losses[begin : begin + rows] = (highest - own + total.log()).squeeze(1)
            if gradients is not None:
                logits.div_(total).scatter_add_(1, target, torch.full_like(total, -1.0))
                gradients.add(begin, part, logits)
    return losses.sum()
