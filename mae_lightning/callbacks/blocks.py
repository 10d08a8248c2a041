"""What is done to each block of a model: it is compiled, or its activations are computed again in the backward pass."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.distributed._composable.checkpoint_activation import checkpoint

from mae_lightning.models import repeated_blocks


class ActivationCheckpointing(Callback):
    """Keeps the input of each block alone and computes the rest again: far less memory, about a third more time.

    Chen et al. 2016, arXiv 1604.06174. The numbers stay the same.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before blocks are compiled or sharded."""
        if stage == "fit":
            for block in repeated_blocks(pl_module):
                checkpoint(block)


class CompiledBlocks(Callback):
    """Compiles each block with torch.compile: blocks that are alike are compiled once.

    Args:
        mode: torch.compile's; None is its default.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before blocks are sharded; names in checkpoints stay the same."""
        for block in repeated_blocks(pl_module):
            block.compile(mode=self.mode)
