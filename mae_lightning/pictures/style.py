"""The one style of all figures: readable in print and on a dark page, in colours that the colour-blind tell apart."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, FAINT, PAPER = "#1a1a1a", "#595959", "#ffffff"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of lines (Okabe and Ito's)."""
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
"""Colour maps: from little to much, and around zero."""
DPI = 150
FORMATS = (".png", ".svg")
TITLE_LETTERS, DETAIL_LETTERS = 13, 18
"""Letters to an inch, and..."""
TITLE_LINE, DETAIL_LINE = 0.18, 0.13
"""...inches to a line."""

styled = matplotlib.rc_context(
    {
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": PAPER,  # opaque, so that ink stays dark on light on a dark page
        "savefig.facecolor": PAPER,
        "svg.fonttype": "path",
        "svg.hashsalt": "mae_lightning",
    }
)
"""Decorator of everything that draws; outside of it matplotlib's settings stay the user's."""


class NotDrawnError(ValueError):
    """A figure does not apply to what was given; the message says why in one line."""


def new_figure(width: float, height: float, title: str, detail: str) -> Figure:
    """An empty figure that lays itself out without overlap.

    Args:
        width: Inches.
        height: Inches, without title and detail.
        title: Above: what is shown of which model and data.
        detail: Below, smaller: what it was made with.
    """
    above, below = _wrapped(title, width * TITLE_LETTERS), _wrapped(detail, width * DETAIL_LETTERS)
    around = TITLE_LINE * len(above) + DETAIL_LINE * len(below)
    figure = Figure(figsize=(width, height + around), layout="constrained")
    if above:
        figure.suptitle("\n".join(above), fontsize=9)
    if below:
        figure.supxlabel("\n".join(below), fontsize=6.5, color=FAINT)
    return figure


def write_figure(figure: Figure, folder: Path, name: str, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Writes a figure once a format, and returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{suffix}" for suffix in formats]
    for path in paths:
        _save(figure, path, path.suffix[1:])
    return paths


def picture_bytes(figure: Figure) -> bytes:
    """A figure as PNG, for a page."""
    picture = io.BytesIO()
    _save(figure, picture, "png")
    return picture.getvalue()


@styled
def _save(figure: Figure, target: Path | io.BytesIO, kind: str) -> None:
    undated: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    figure.savefig(target, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.06, **undated)


def _wrapped(text: str, letters: float) -> list[str]:
    return textwrap.wrap(text, max(20, int(letters)))
