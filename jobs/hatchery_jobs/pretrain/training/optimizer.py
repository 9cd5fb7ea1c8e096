"""AdamW without weight decay on biases and norms."""

import torch

from hatchery_api.resources.pretrain import Optimizer


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; vectors, which are biases and norms in every family, do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(model: torch.nn.Module, spec: Optimizer, peak_lr: float) -> torch.optim.AdamW:
    """The optimizer of `spec.optimizer`, with one fused kernel per step."""
    return torch.optim.AdamW(
        parameter_groups(model, spec.weight_decay),
        lr=peak_lr,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        fused=True,
    )
