"""Position embeddings: how alike they are (ViT, Figures 7 centre and 9), and the Transformer's own as a heat map."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Float32
from matplotlib.figure import Figure
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mae_lightning.models import raster_sincos_positions
from mae_lightning.pictures.style import DIVERGING, SEQUENTIAL, NotDrawnError, new_figure, styled

ACROSS = 4
"""Panels side by side."""
FORMULA = r"$PE_{p,\,2i} = \sin(p\,/\,10000^{2i/d}), \quad PE_{p,\,2i+1} = \cos(p\,/\,10000^{2i/d})$"


def position_similarities(encoder: Any) -> dict[str, Float[Tensor, "row column other_row other_column"]]:
    """Cosine similarity of each patch's position embedding with all others, by where it is added.

    Args:
        encoder: A timm VisionTransformer, whatever its positions.

    Raises:
        NotDrawnError: It has no embedding of absolute positions.
    """
    if not isinstance(encoder, VisionTransformer):
        raise NotDrawnError(f"a {type(encoder).__name__} has no embedding of absolute positions")
    if encoder.pos_embed is not None:
        tables = {"": encoder.pos_embed[0]}
    elif hasattr(encoder, "positions"):
        tables = {f"added at {place}" if place else "": table() for place, table in _by_place(encoder).items()}
    else:
        raise NotDrawnError("its positions are none or relative, and no embedding is added to a patch")
    grid = encoder.patch_embed.grid_size
    return {place: cosine_similarity(table[-grid[0] * grid[1] :], grid) for place, table in tables.items()}


def cosine_similarity(
    vectors: Float[Tensor, "patch dim"], grid: tuple[int, int]
) -> Float[Tensor, "row column other_row other_column"]:
    """Cosine of the angle between each two vectors of a grid."""
    unit = F.normalize(vectors.detach().float().cpu(), dim=1)
    return (unit @ unit.T).view(*grid, *grid)


def _by_place(encoder: Any) -> dict[str, Any]:
    tables = list(encoder.positions)
    return {"": tables[0]} if len(tables) == 1 else {f"block {place}": each for place, each in enumerate(tables, 1)}


@styled
def draw_similarities(
    panels: Mapping[str, Float[Tensor, "row column other_row other_column"]], title: str, detail: str
) -> Figure:
    """Draws a grid of maps a panel: the map at row, column shows the similarity of the patch there with all others."""
    least = math.floor(10 * min(float(similarity.min()) for similarity in panels.values())) / 10
    across, down = min(ACROSS, len(panels)), math.ceil(len(panels) / ACROSS)
    side = 3.4 if across == 1 else 2.6
    figure = new_figure(side * across + 0.9, side * down, title, detail)
    axes = figure.subplots(down, across, squeeze=False)
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    for place, (name, similarity) in zip(axes.flat, panels.items(), strict=False):
        drawn = place.imshow(_maps(similarity.numpy()), SEQUENTIAL, vmin=least, vmax=1, interpolation="nearest")
        rows, columns = similarity.shape[:2]
        place.set_yticks(*_ticks(rows, rows + 1), minor=False)
        place.set_xticks(*_ticks(columns, columns + 1), minor=False)
        place.set(title=name, xlabel="patch column", ylabel="patch row")
    figure.colorbar(drawn, ax=axes, label="cosine similarity", shrink=0.8)
    return figure


def _maps(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """The maps side by side, with empty lines between."""
    rows, columns = similarity.shape[:2]
    parted = np.pad(similarity, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    canvas: NDArray[np.float32] = parted.transpose(0, 2, 1, 3).reshape(rows * (rows + 1), columns * (columns + 1))
    return canvas[:-1, :-1]


def _ticks(count: int, step: int) -> tuple[list[float], list[str]]:
    """About seven places in the middle of their maps, numbered from 1."""
    shown = range(0, count, math.ceil(count / 7))
    return [place * step + (count - 1) / 2 for place in shown], [str(place + 1) for place in shown]


def sincos_encoding(num_positions: int, dim: int) -> Float32[Tensor, "position dim"]:
    """The Transformer's encoding (Vaswani et al. 2017, Section 3.5) of that many positions.

    Raises:
        NotDrawnError: ``dim`` is odd.
    """
    if dim % 2:
        raise NotDrawnError(f"sines and cosines in pairs need an even width, not {dim}")
    return raster_sincos_positions(num_positions, dim)


@styled
def draw_encoding(encoding: Float32[Tensor, "position dim"], title: str, detail: str) -> Figure:
    """Draws it as a heat map under its formula."""
    figure = new_figure(6.0, 3.1, title, detail)
    axes = figure.subplots()
    drawn = axes.imshow(encoding.numpy(), DIVERGING, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_title(FORMULA, fontsize=9)
    axes.set(xlabel=f"channel (2i or 2i + 1, of d = {encoding.shape[1]})", ylabel="position p")
    figure.colorbar(drawn, ax=axes, label="value")
    return figure
