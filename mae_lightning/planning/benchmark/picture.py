"""Measured steps as a picture: paces by batch size, and where the time goes."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mae_lightning.pictures.style import COLOURS, new_figure, styled, write_figure
from mae_lightning.planning.benchmark.contender import PARTS
from mae_lightning.planning.benchmark.figures import Table

WIDTH, ROW_HEIGHT, AROUND = 7.6, 0.26, 0.9
"""Inches: of the figure, a candidate, and around the candidates of a table."""


@styled
def draw(tables: list[Table], device: str) -> Figure:
    """Each table a row of two panels: images a second with their intervals, and milliseconds by part."""
    heights = [AROUND + ROW_HEIGHT * len(table.rows) for table in tables]
    detail = f"{device}; medians of {tables[0].rounds} rounds, lines are 95 % intervals"
    figure = new_figure(WIDTH, sum(heights), "Training steps of masked autoencoders", detail)
    panels = figure.subplots(len(tables), 2, squeeze=False, height_ratios=heights)
    for (left, right), table in zip(panels, tables, strict=True):
        _paces(left, table)
        _parts(right, table)
    panels[0, 1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def write(tables: list[Table], device: str, path: Path) -> None:
    """Writes the picture; the suffix says as what."""
    write_figure(draw(tables, device), path.parent, path.stem, [path.suffix])


def _paces(panel: Any, table: Table) -> None:
    paces = [row.images_per_second for row in table.rows]
    medians = [pace.median for pace in paces]
    errors = [[pace.median - pace.low for pace in paces], [pace.high - pace.median for pace in paces]]
    panel.barh(range(len(paces)), medians, xerr=errors, color=COLOURS[0], ecolor=COLOURS[1], height=0.6)
    panel.set_yticks(range(len(paces)), [row.title for row in table.rows])
    panel.invert_yaxis()
    panel.set(title=f"{table.model}, batch {table.batch_size}", xlabel="images/s")


def _parts(panel: Any, table: Table) -> None:
    names = [part for part in PARTS if any(part in row.parts for row in table.rows)]
    starts = [0.0] * len(table.rows)
    for name, colour in zip(names, (*COLOURS, "#999999"), strict=False):
        lengths = [1000 * row.parts[name].median if name in row.parts else 0.0 for row in table.rows]
        panel.barh(range(len(lengths)), lengths, left=starts, color=colour, height=0.6, label=name)
        starts = [start + length for start, length in zip(starts, lengths, strict=True)]
    panel.set_yticks([])
    panel.invert_yaxis()
    panel.set(title="by part", xlabel="milliseconds a step")
