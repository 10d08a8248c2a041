"""What a training step costs, without running it."""

from copy import deepcopy

import torch
from torch.utils.flop_counter import FlopCounterMode

from mae_lightning.models.masked import MaskedModel
from mae_lightning.models.masking import PatchMask


def step_flops(model: MaskedModel, num_kept: int) -> int:
    """Floating-point operations of forward and backward for one image; a multiplication with its addition are two.

    Counted by torch on tensors without memory: matrix products and convolutions, not what goes element by element. What
    makes the target is left out, which may be another program's work, and what is computed twice to save memory.

    Args:
        model: The masked autoencoder or SimMIM, which is left as it is.
        num_kept: Patches of an image that are not hidden.
    """
    model = deepcopy(model).train().to("meta")
    for module in model.modules():  # activation checkpointing is a pair of hooks
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    with torch.device("meta"):
        kept = torch.zeros(1, num_kept, dtype=torch.int64)
        masked = torch.zeros(1, model.num_patches - num_kept, dtype=torch.int64)
        mask = PatchMask(kept, masked, torch.zeros(1, model.num_patches))
        images = torch.zeros(1, model.num_channels, *model.image_size)
    with FlopCounterMode(display=False) as counter:
        prediction = model._predict(model.patches(images), mask, model.predicted(mask), model.grid)
        torch.autograd.backward(prediction.sum())
    return int(counter.get_total_flops())
