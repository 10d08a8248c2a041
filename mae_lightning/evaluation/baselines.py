"""What trivial predictors get on the same masks: a masked loss means little without them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mae_lightning.evaluation.wide import WideMetric
from mae_lightning.models import PatchMask


def visible_mean(target: Float[Tensor, "batch patch output"], mask: PatchMask) -> Float[Tensor, "batch masked output"]:
    """Predicts, for every masked patch, the mean target of the image's visible patches."""
    index = mask.kept.unsqueeze(-1).expand(-1, -1, target.shape[-1])
    mean = target.gather(1, index).mean(dim=1, keepdim=True)
    return mean.expand(-1, mask.masked.shape[1], -1)


class PositionMeanLoss(WideMetric):
    """Mean squared error of the best constant patch at each position, over all masked patches seen.

    The constants are fitted on the very patches that they are judged on, in closed form (sum of squares less the
    squared sum over the count), so no predictor that looks at the position alone does better: the hardest of its kind.
    Sums are float64 and add up over processes.

    Args:
        num_patches: Patches an image.
        num_outputs: Values a patch.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, num_patches: int, num_outputs: int) -> None:
        super().__init__()
        shape = (num_patches, num_outputs)
        self.add_state("count", torch.zeros(num_patches, 1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(
        self,
        target: Float[Tensor, "batch patch output"],
        is_masked: Bool[Tensor, "batch patch"],
    ) -> None:
        """Adds the masked patches of a batch; rows that do not count come with nothing masked."""
        weight = is_masked.unsqueeze(-1).double()
        target = target.double()
        self.count += weight.sum(dim=0)
        self.total += (target * weight).sum(dim=0)
        self.squares += (target.square() * weight).sum(dim=0)

    def compute(self) -> Tensor:
        """The loss: mean over masked patches of the mean squared error over a patch's values."""
        residual = self.squares - self.total.square() / self.count.clamp(min=1)
        return residual.sum() / (self.count.sum().clamp(min=1) * residual.shape[1])
