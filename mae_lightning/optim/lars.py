"""LARS as linear probing uses it (paper Table 10; You et al. 2017, arXiv 1708.03888)."""

from collections.abc import Iterable

from timm.optim.lars import Lars
from torch import nn


def build_lars(parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0) -> Lars:
    """LARS of timm, scaling also without weight decay; one-dimensional parameters are neither scaled nor decayed.

    timm alone applies the trust ratio (coefficient 0.001) only to what decays: at the paper's weight decay of 0 it is
    plain SGD. Momentum is the paper's 0.9. Frozen parameters are left out.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "always_adapt": True},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "always_adapt": False},
    ]
    return Lars([group for group in groups if group["params"]], lr=lr, momentum=0.9, trust_coeff=0.001)
