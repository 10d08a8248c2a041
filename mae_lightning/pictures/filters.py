"""What the patch embedding looks for: principal components of its filters (ViT, Figure 7, left)."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mae_lightning.pictures.sheet import INCHES, NOTE, coloured, draw_tiles
from mae_lightning.pictures.style import DIVERGING, new_figure, styled

NUM_COMPONENTS, ACROSS = 28, 7
"""As many as in the paper's figure, and as many side by side."""


@dataclass(frozen=True)
class Components:
    """Principal components, the strongest first.

    Attributes:
        axes: Unit vectors in the shape of what was given; of each, the entry of the largest size is positive.
        share: Of the variance that each explains.
    """

    axes: Float[Tensor, "component *shape"]
    share: Float[Tensor, "component"]


def principal_components(samples: Float[Tensor, "sample *shape"], count: int) -> Components:
    """Principal components of samples, centred; at most as many as there are."""
    flat = samples.detach().flatten(1).double().cpu()
    _, sizes, axes = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    axes = (axes * largest.sign())[:count]
    share = sizes.square() / sizes.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Components(axes.unflatten(1, samples.shape[1:]).float(), share[:count].float())


@styled
def draw_filters(components: Components, title: str, detail: str) -> Figure:
    """Draws components of three channels in colour, of others each channel for itself, side by side."""
    pictures = [_picture(component) for component in components.axes]
    columns = [pictures[start::ACROSS] for start in range(min(ACROSS, len(pictures)))]
    shares = [f"{share:.1%}" for share in components.share.tolist()]
    notes = [shares[start::ACROSS] for start in range(len(columns))]
    height, width = pictures[0].shape[:2]
    rows = ceil(len(pictures) / ACROSS)
    side = max(INCHES * 0.75, 2.6 / len(columns))
    figure = new_figure(side * len(columns), side * rows * (height / width + NOTE), title, detail)
    draw_tiles(figure.subplots(), columns, [], notes)
    return figure


def _picture(component: Float[Tensor, "channel height width"]) -> NDArray[np.float32]:
    largest = float(component.abs().max())
    if len(component) == 3:
        shown: NDArray[np.float32] = (0.5 + component / (2 * largest)).permute(1, 2, 0).numpy()
        return shown
    return coloured(torch.cat(list(component), dim=1), -largest, largest, DIVERGING)
