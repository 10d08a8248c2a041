"""Images in rows under titled columns, as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mae_lightning.pictures.style import SEQUENTIAL, new_figure, styled, write_figure

INCHES, MAX_INCHES = 1.15, 11.0
"""Side of one image on the sheet, and of the widest sheet."""
SHARP_PIXELS = 64
"""Smaller images are enlarged without smoothing to at least this width."""
GAP, NOTE = 0.05, 0.16
"""Space between images, and for a note below one, as shares of an image's width."""


def draw_sheet(columns: Mapping[str, Float[Tensor, "batch channel height width"]], path: Path, caption: str) -> None:
    """Writes one row an image and one titled column a kind, with a caption below, as PNG; images in 0 to 1.

    Raises:
        ValueError: There is no image to draw.
    """
    write_figure(sheet(columns, "", caption), path.parent, path.stem, [path.suffix])


@styled
def sheet(
    columns: Mapping[str, Float[Tensor, "batch channel height width"]],
    title: str,
    detail: str,
    notes: Sequence[Sequence[str]] = (),
) -> Figure:
    """The same as a figure.

    Args:
        columns: Images by the title of their column, in 0 to 1.
        title: Above.
        detail: Below.
        notes: Of each column, a few words under each of its images.

    Raises:
        ValueError: There is no image to draw.
    """
    pictures = [[as_rgb(image) for image in images] for images in columns.values()]
    if not pictures or not pictures[0]:
        raise ValueError("a sheet of 0 images cannot be drawn; give at least one")
    height, width = pictures[0][0].shape[:2]
    side = min(INCHES, MAX_INCHES / len(pictures))
    tall = side * len(pictures[0]) * (height / width + (NOTE if notes else 0) + GAP)
    figure = new_figure(max(side * len(pictures), 2.4) + 0.1, tall + 0.2, title, detail)
    draw_tiles(figure.subplots(), pictures, list(columns), notes)
    return figure


def draw_tiles(
    axes: Axes, columns: Sequence[Sequence[NDArray[np.float32]]], titles: Sequence[str], notes: Sequence[Sequence[str]]
) -> None:
    """Puts columns of equally large pictures of three channels side by side."""
    times = -(-SHARP_PIXELS // columns[0][0].shape[1])
    columns = [[picture.repeat(times, axis=0).repeat(times, axis=1) for picture in column] for column in columns]
    height, width = columns[0][0].shape[:2]
    across = width + max(1, round(GAP * width))
    down = height + max(1, round(GAP * width)) + (round(NOTE * width) if notes else 0)
    size = (down * (max(map(len, columns)) - 1) + height, across * (len(columns) - 1) + width)
    canvas = np.ones((*size, 3), np.float32)
    for column, pictures in enumerate(columns):
        for row, picture in enumerate(pictures):
            top, left = row * down, column * across
            canvas[top : top + height, left : left + width] = picture
            if notes:
                place = (left + width / 2, top + height + 0.02 * width)
                axes.text(*place, notes[column][row], ha="center", va="top", fontsize=6.5)
    axes.imshow(canvas, vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    for column, text in enumerate(titles):
        axes.text(column * across + width / 2, -0.05 * width, text, ha="center", va="bottom", fontsize=7)


def as_rgb(image: Float[Tensor, "channel height width"]) -> "np.ndarray[tuple[int, int, int], np.dtype[np.float32]]":
    """Three channels to show: grey thrice, or the first three of more; two channels show the first as grey."""
    channels = image if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return channels[:3].permute(1, 2, 0).float().cpu().numpy()


def coloured(values: Float[Tensor, "*shape"], low: float, high: float, name: str = SEQUENTIAL) -> NDArray[np.float32]:
    """Values between two bounds in a colour map: three channels, the last axis."""
    scaled = ((values.float().cpu() - low) / (high - low)).clamp(0, 1)
    colours: NDArray[np.float32] = matplotlib.colormaps[name](scaled.numpy())[..., :3].astype(np.float32)
    return colours
