"""Figures of attention."""

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mae_lightning.pictures.attention import AttentionDistance, AttentionMaps
from mae_lightning.pictures.sheet import as_rgb, coloured, sheet
from mae_lightning.pictures.style import COLOURS, INK, new_figure, styled


@styled
def draw_distance(distance: AttentionDistance, title: str, detail: str) -> Figure:
    """Draws a point a head over depth, each block's mean, and the line of uniform attention."""
    depth = len(distance.by_head)
    figure = new_figure(max(4.6, 0.22 * depth + 2), 3.0, title, detail)
    axes = figure.subplots()
    for block, heads in enumerate(distance.by_head, start=1):
        spread = np.linspace(-0.16, 0.16, len(heads)) if len(heads) > 1 else np.zeros(1)
        axes.scatter(block + spread, heads.sort().values.numpy(), s=14, color=COLOURS[0], alpha=0.75, linewidths=0)
    blocks = range(1, depth + 1)
    axes.plot(blocks, [float(heads.mean()) for heads in distance.by_head], color=COLOURS[1], lw=1.2)
    axes.step(blocks, distance.uniform, where="mid", color=INK, ls="--", lw=1)
    labels = ["one head", "mean of the heads", "uniform attention"]
    handles = [axes.collections[0], *axes.lines]
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    axes.set_xlabel("block, from 1")
    axes.set_ylabel("mean attention distance (pixels)")
    axes.set_xticks([block for block in blocks if depth <= 12 or block % 2 == 0])
    axes.set_ylim(0, 1.08 * max([*distance.uniform, *(float(heads.max()) for heads in distance.by_head)]))
    return figure


@styled
def draw_maps(
    maps: AttentionMaps, images: Float[Tensor, "image channel height width"], title: str, detail: str
) -> Figure:
    """Draws the maps over the images, a row an image: rollout first, then head by head; images in 0 to 1."""
    columns = {"image": _grey(images) if images.shape[1] < 3 else images, "rollout": _over(maps.rollout, images)}
    for head in range(maps.by_head.shape[1]):
        columns[f"head {head + 1}"] = _over(maps.by_head[:, head], images)
    return sheet(columns, title, detail)


def _over(
    maps: Float[Tensor, "image row column"], images: Float[Tensor, "image channel height width"]
) -> Float[Tensor, "image 3 height width"]:
    """Each map in colours, from nothing to its own maximum, over the image."""
    steps = [pixels // cells for pixels, cells in zip(images.shape[2:], maps.shape[1:], strict=True)]
    fine = maps.repeat_interleave(steps[0], dim=1).repeat_interleave(steps[1], dim=2)
    scaled = fine / fine.amax(dim=(1, 2), keepdim=True)
    colours = torch.from_numpy(coloured(scaled, 0.0, 1.0)).movedim(-1, 1)
    return 0.7 * colours + 0.3 * _grey(images)


def _grey(images: Float[Tensor, "image channel height width"]) -> Float[Tensor, "image 1 height width"]:
    shown = torch.stack([torch.from_numpy(as_rgb(image).mean(axis=2)) for image in images])
    return shown.unsqueeze(1)
