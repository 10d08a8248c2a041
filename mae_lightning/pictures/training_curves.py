"""A run's figures over its steps, several seeds as one line with a band."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mae_lightning.pictures.style import COLOURS, FAINT, NotDrawnError, new_figure, styled

ACROSS = 2
"""Panels side by side."""


@dataclass(frozen=True)
class Curve:
    """One figure of one run.

    Attributes:
        steps: Optimiser steps, ascending.
        values: The figure after each.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """One figure of runs that differ in their seed, at the steps that all of them logged.

    Attributes:
        steps: Optimiser steps, ascending.
        mean: Over the runs.
        deviation: Standard deviation over the runs (n - 1); 0 for a single run.
        num_runs: How many.
    """

    steps: NDArray[np.int64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    num_runs: int


def spread_of(curves: Sequence[Curve]) -> Spread:
    """Mean and deviation of several runs' curves.

    Raises:
        NotDrawnError: No step was logged by all of them.
    """
    steps = reduce(np.intersect1d, [curve.steps for curve in curves])
    if not len(steps):
        raise NotDrawnError(f"{len(curves)} runs with the same settings have no logged step in common")
    values = np.stack([curve.values[np.isin(curve.steps, steps)] for curve in curves])
    deviation = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(steps))
    return Spread(steps, values.mean(axis=0), deviation, len(curves))


@styled
def draw_curves(
    panels: Mapping[str, Mapping[str, Spread]], references: Collection[str], title: str, detail: str
) -> Figure:
    """Draws a panel a figure, a line a setting, in the band of its seeds.

    Args:
        panels: By the figure's name, the curves by their label.
        references: Labels of those that are drawn faint and dashed.
        title: Above.
        detail: Below.
    """
    across, down = min(ACROSS, len(panels)), -(-len(panels) // ACROSS)
    figure = new_figure(4.4 * across, 2.6 * down, title, detail)
    axes = figure.subplots(down, across, squeeze=False)
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    lines = {}
    for place, (metric, curves) in zip(axes.flat, panels.items(), strict=False):
        for label, curve in curves.items():
            is_reference = label in references
            colour = FAINT if is_reference else COLOURS[labels.index(label) % len(COLOURS)]
            style = {"color": colour, "linestyle": "--" if is_reference else "-", "lw": 1.2}
            marker = {"marker": "o", "markersize": 3} if len(curve.steps) < 20 else {}
            (lines[label],) = place.plot(curve.steps, curve.mean, **style, **marker)
            low, high = curve.mean - curve.deviation, curve.mean + curve.deviation
            if curve.num_runs > 1:
                place.fill_between(curve.steps, low, high, color=colour, alpha=0.2, lw=0)
        place.set(xlabel="optimiser step", ylabel=metric)
        place.grid(alpha=0.25)
    first = axes.flat[0]
    first.legend(lines.values(), lines.keys(), loc="lower left", bbox_to_anchor=(0, 1), ncols=min(2, len(lines)))
    return figure
