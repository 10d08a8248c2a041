"""How fresh weights are drawn (paper, Appendix A.1, after the official ViT code)."""

from torch import nn

TOKEN_STD = 0.02
"""Standard deviation of fresh class, register and mask tokens."""


def init_linear_layers(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer inside; norms start as 1 and 0 on their own."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            init_as_linear(layer)


def init_as_linear(layer: nn.Linear | nn.Conv2d) -> None:
    """Xavier-uniform over the flattened filter and a zero bias: a patch embedding is a linear layer."""
    nn.init.xavier_uniform_(layer.weight.flatten(1))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
