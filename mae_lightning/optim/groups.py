"""Which parameters decay."""

from collections.abc import Collection
from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float, no_decay: Collection[str] = ()) -> list[dict[str, Any]]:
    """Optimiser groups with and without weight decay (paper Table 8); frozen parameters are in neither.

    Biases and norms, all of one dimension, do not decay. Class and mask tokens do, as in official pretraining, unless
    they are named.

    Args:
        model: The model.
        weight_decay: For what decays.
        no_decay: Names of further parameters that do not.
    """
    plain: list[nn.Parameter] = []
    decaying: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if parameter.ndim <= 1 or name in no_decay else decaying).append(parameter)
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
