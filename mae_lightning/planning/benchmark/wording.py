"""Tables of measured steps, as text."""

from collections.abc import Iterator

from mae_lightning.data.benchmark import Cost
from mae_lightning.planning.benchmark.contender import PARTS
from mae_lightning.planning.benchmark.figures import Ratio, Table
from mae_lightning.planning.hardware import GIB

NONE = "-"


def lines_of(table: Table) -> Iterator[str]:
    """A table as lines for people."""
    rates = ", ".join(f"{rate.median / 1e12:.3g} TFLOP/s in {name}" for name, rate in table.matrix_rates.items())
    yield f"{table.model}, batch {table.batch_size}: medians of {table.rounds} rounds and their 95 % intervals"
    copies = f"{table.copy_rate.median / 1e9:.3g} GB/s (large copies)"
    yield f"the device by itself: {rates} (large matrix products), {copies}"
    yield from _grid(
        ("", "images/s", "ms a step", "GFLOP an image", "matrix rate", "copy rate", "peak GiB"),
        [
            (
                row.title,
                _cell(row.images_per_second),
                _cell(row.seconds, 1000.0),
                f"{row.flops_per_image / 1e9:.3g}",
                _share(row.matrix_share),
                _share(row.copy_share),
                NONE if row.peak_bytes is None else f"{row.peak_bytes / GIB:.2f}",
            )
            for row in table.rows
        ],
    )
    parts = [part for part in PARTS if any(part in row.parts for row in table.rows)]
    yield ""
    yield from _grid(
        ("milliseconds", *parts),
        [
            (row.title, *(f"{1000 * row.parts[part].median:.1f}" if part in row.parts else NONE for part in parts))
            for row in table.rows
        ],
    )
    for title in table.too_large:
        yield f"{title}: does not fit into the device's memory"
    if table.ratios:
        yield ""
        yield from _ratios(table.ratios)


def _ratios(ratios: list[Ratio]) -> Iterator[str]:
    has_flops, has_paper = any(ratio.flops for ratio in ratios), any(ratio.paper for ratio in ratios)
    head = ("ratio of images/s", "", *(["FLOPs"] if has_flops else []), *(["paper"] if has_paper else []))
    rows = [
        (
            ratio.title,
            _cell(ratio.times, digits=3),
            *([_number(ratio.flops)] if has_flops else []),
            *([_number(ratio.paper)] if has_paper else []),
        )
        for ratio in ratios
    ]
    yield from _grid(head, rows)


def _grid(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as they have to be, the first to the left."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield f"  {row[0]:<{widths[0]}}  {'  '.join(cells)}".rstrip()


def _cell(cost: Cost, scale: float = 1.0, digits: int | None = None) -> str:
    median, low, high = (scale * value for value in (cost.median, cost.low, cost.high))
    if digits is None:
        digits = 0 if median >= 1000 else 1 if median >= 100 else 2
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _share(cost: Cost | None) -> str:
    return NONE if cost is None else f"{cost.median:.0%}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
