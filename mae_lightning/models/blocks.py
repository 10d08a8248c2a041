"""The repeated blocks of a model: what is sharded, compiled or recomputed one at a time."""

from collections.abc import Iterator

from torch import nn

BLOCKS = "blocks"
"""What timm and this package call the sequence of a model's blocks."""


def repeated_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of encoder and decoder, in the order of their names; of a Swin those of all stages."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == BLOCKS:
            yield from module.children()
