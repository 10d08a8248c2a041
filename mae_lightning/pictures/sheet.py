"""Images in rows under titled columns, as one picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

INCHES = 1.3
"""Side of one image on the sheet."""


def draw_sheet(
    columns: Mapping[str, Float[Tensor, "batch channel height width"]], path: Path, caption: str, dpi: int = 120
) -> None:
    """Writes one row an image and one titled column a kind, with a caption below; images in 0 to 1.

    Raises:
        ValueError: There is no image to draw.
    """
    num_rows = len(next(iter(columns.values()), ()))
    if num_rows == 0:
        raise ValueError("a sheet of 0 images cannot be drawn; give at least one")
    height, width = next(iter(columns.values())).shape[-2:]
    tall = INCHES * height / width
    size = (INCHES * len(columns) + 0.2, tall * num_rows + 0.75)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, len(columns), squeeze=False)
    margin = {"left": 0.1 / size[0], "right": 1 - 0.1 / size[0], "bottom": 0.45 / size[1], "top": 1 - 0.28 / size[1]}
    figure.subplots_adjust(**margin, wspace=0.05, hspace=0.05)
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=7)
        for row, image in enumerate(images):
            axes[row, column].imshow(as_rgb(image), vmin=0, vmax=1, interpolation="nearest", aspect="auto")
            axes[row, column].set_axis_off()
    figure.text(0.5, 0.12 / size[1], caption, ha="center", va="bottom", fontsize=6, wrap=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)


def as_rgb(image: Float[Tensor, "channel height width"]) -> "np.ndarray[tuple[int, int, int], np.dtype[np.float32]]":
    """Three channels to show: grey thrice, or the first three of more; two channels show the first as grey."""
    channels = image if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return channels[:3].permute(1, 2, 0).float().cpu().numpy()
