"""What lies in a GPU's memory, by part, and how many images fit beside it.

Under DDP every GPU holds all of it (the buckets are the gradients: ``gradient_as_bucket_view``). Under FSDP2
(``fully_shard``; Zhao et al. 2023, arXiv 2304.11277, Section 3) weights, gradients and the optimiser's values are cut
into as many parts as there are GPUs; whole at one time are what lies outside of the blocks, two blocks' weights (one at
work, one on its way) and a block's gradient. Under autocast the 16-bit copies of the weights are kept for the backward
pass, whole on every GPU, also under FSDP; recomputing blocks frees theirs.
"""

from dataclasses import dataclass

from mae_lightning.planning.setting import Setting
from mae_lightning.planning.step import Bytes, StepCost

USABLE = 0.92
"""Share of a GPU's memory for these parts: the rest is the CUDA context, libraries' workspaces and fragmentation."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU at the peak.

    Attributes:
        weights: Parameters, or this GPU's part of them.
        gradients: Likewise.
        optimiser: Likewise its values.
        gathered: Under FSDP, what is whole for a while.
        copies: Kept for the backward pass however large the batch: under autocast, the weights in 16 bit.
        per_image: Activations of an image, with the inputs and outputs of the operation that needs most.
        usable: All that these may take together.
    """

    weights: float
    gradients: float
    optimiser: float
    gathered: float
    copies: float
    per_image: float
    usable: float

    @property
    def fixed(self) -> float:
        """All but the activations."""
        return self.weights + self.gradients + self.optimiser + self.gathered + self.copies

    @property
    def largest_micro_batch(self) -> int:
        """Images that fit at once; 0 where the model alone does not."""
        return max(0, int((self.usable - self.fixed) / self.per_image))

    def total(self, images: int) -> float:
        """Bytes with so many images at once."""
        return self.fixed + images * self.per_image

    def parts(self, images: int) -> dict[str, float]:
        """Bytes by what they are for, with so many images at once."""
        named = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimiser,
            "whole for a while": self.gathered,
            "copies for the backward pass": self.copies,
            "activations": images * self.per_image,
        }
        return {name: size for name, size in named.items() if size}


def memory_of(cost: StepCost, setting: Setting) -> Memory:
    """The parts of a step's memory."""
    width, kept = setting.precision.weight_bytes, kept_bytes(cost, setting.recomputes)
    parts = setting.size if setting.strategy == "fsdp" else 1
    gathered = float(cost.outside_blocks + 3 * cost.largest_block if parts > 1 else 0)
    return Memory(
        weights=width * cost.parameters / parts,
        gradients=width * cost.trained / parts,
        optimiser=width * cost.trained * cost.optimiser_values / parts,
        gathered=width * gathered,
        copies=kept.fixed,
        per_image=kept.per_image + cost.working.per_image,
        usable=USABLE * setting.gpu.memory_bytes,
    )


def kept_bytes(cost: StepCost, recomputes: bool) -> Bytes:
    """What is kept for the backward pass; if blocks are recomputed, their inputs and the parts of the largest."""
    if not recomputes:
        return cost.kept
    kept = (cost.kept_outside, cost.block_inputs, cost.kept_in_block)
    return Bytes(sum(part.fixed for part in kept), sum(part.per_image for part in kept))
