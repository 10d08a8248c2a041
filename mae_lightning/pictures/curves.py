"""The paper's figures beside ours, as a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PANEL = (4.6, 2.9)
PAPER_COLOR, OUR_COLOR = "#777777", "#1f5fbf"
SUFFIXES = (".png", ".pdf")


@dataclass(frozen=True)
class Points:
    """One side of a panel pair: figures at places.

    Attributes:
        title: What is shown.
        places: On the axis, of every row: numbers for a curve, otherwise the rows' numbers.
        means: A figure a place, or None.
        half_widths: Half of each interval, or None where there is none.
    """

    title: str
    places: Sequence[float]
    means: Sequence[float | None]
    half_widths: Sequence[float | None]


def draw_panels(
    path: Path, title: str, axis: str, labels: Sequence[str], sides: Sequence[tuple[Points, Points]], is_curve: bool
) -> list[Path]:
    """Writes the panels, the paper's left and ours right, a row a figure; each with a scale of its own.

    Args:
        path: Where to, without a suffix.
        title: Over all of them.
        axis: What is varied.
        labels: Of the rows.
        sides: The paper's points and ours, by figure.
        is_curve: Whether places are numbers to be joined by a line, or rows to be named.

    Returns:
        The PNG and the PDF.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * PANEL[0], PANEL[1] * len(sides) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(sides), 2, squeeze=False)
    for pair, panels in zip(sides, axes, strict=True):
        for points, panel, color in zip(pair, panels, (PAPER_COLOR, OUR_COLOR), strict=True):
            _draw(panel, points, color, labels, is_curve)
            panel.set_title(points.title, fontsize=9)
            if is_curve:
                panel.set_xlabel(axis, fontsize=9)
    written = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    for file in written:
        figure.savefig(file, dpi=150, metadata={"CreationDate": None} if file.suffix == ".pdf" else {})
    return written


def _draw(panel: Any, points: Points, color: str, labels: Sequence[str], is_curve: bool) -> None:
    known = [number for number, value in enumerate(points.means) if value is not None]
    means = [points.means[number] for number in known]
    bars = [points.half_widths[number] or math.nan for number in known]
    places = [points.places[number] for number in known]
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)
    if not known:
        panel.text(0.5, 0.5, "no figure", ha="center", va="center", transform=panel.transAxes, color=color)
    if is_curve:
        panel.errorbar(places, means, yerr=bars, fmt="o-", color=color, capsize=3, markersize=4)
        panel.set_xticks(list(points.places), labels, fontsize=6.5)
        panel.set_xlim(*_margins(points.places))
        for place, value in zip(places, means, strict=True):
            panel.annotate(f"{value:.1f}", (place, value), (0, 6), textcoords="offset points", fontsize=7, ha="center")
        panel.margins(y=0.2)
        return
    panel.errorbar(means, places, xerr=bars, fmt="o", color=color, capsize=3, markersize=4)
    panel.set_yticks(list(points.places), labels)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    for place, value in zip(places, means, strict=True):
        panel.annotate(f"{value:.1f}", (value, place), (0, 6), textcoords="offset points", fontsize=7, ha="center")
    panel.margins(x=0.2)


def _margins(places: Sequence[float]) -> tuple[float, float]:
    margin = 0.06 * (max(places) - min(places)) or 1.0
    return min(places) - margin, max(places) + margin
