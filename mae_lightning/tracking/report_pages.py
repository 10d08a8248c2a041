"""A report as files: Markdown, LaTeX, pictures, and one page of HTML that needs nothing else."""

import base64
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path

from mae_lightning.pictures.curves import Points, draw_panels
from mae_lightning.tracking.comparison import Comparison
from mae_lightning.tracking.report_maps import draw_positions
from mae_lightning.tracking.report_tables import READING, Table, plain_rows, scale_of, sentences, tables
from mae_lightning.tracking.studies import Column
from mae_lightning.tracking.trials import REPORT

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem } caption { text-align: left; color: #57606a; }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #d8dee4; }
th { border-bottom: 2px solid #57606a } th:first-child, td:first-child, .words :last-child { text-align: left }
img { max-width: 100%; height: auto } .note { color: #57606a }
@media (prefers-color-scheme: dark) {
  body { background: #14171a; color: #e6e9ec } caption, .note { color: #9aa4ad } td { border-color: #30363d }
  img { background: #fff }
}
"""


def write_report(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """Writes everything into a folder and returns the files, the pages first."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        comparison.name: draw_positions(comparison, folder) or _picture(comparison, folder)
        for comparison in comparisons
    }
    pages = {
        "report.md": _markdown(comparisons, pictures),
        "report.tex": "\n\n".join(table.latex() for each in comparisons for table in tables(each)[:-1]) + "\n",
        "report.html": _page(comparisons, pictures),
        REPORT: json.dumps([row for each in comparisons for row in plain_rows(each)], indent=1) + "\n",
    }
    for name, text in pages.items():
        (folder / name).write_text(text)
    return [*(folder / name for name in pages), *(path for paths in pictures.values() for path in paths)]


def _picture(comparison: Comparison, folder: Path) -> list[Path]:
    study, lines = comparison.study, comparison.lines
    values = [line.row.value for line in lines]
    is_numeric = study.is_curve and all(isinstance(value, int | float) for value in values)
    places = [float(value) for value in values] if is_numeric else [float(number) for number in range(len(values))]
    labels = [line.row.label for line in lines]
    sides = [_sides(comparison, column, places) for column in study.columns]
    axis = study.axis.rpartition(".")[2].replace("_", " ")
    path = folder / comparison.name.replace("/", "-")
    return draw_panels(path, study.title, axis, labels, sides, study.is_curve)


def _sides(comparison: Comparison, column: Column, places: Sequence[float]) -> tuple[Points, Points]:
    lines, scale = comparison.lines, scale_of(comparison, column)
    paper = [line.row.paper.get(column.metric) for line in lines]
    cells = [line.cells.get(column.metric) for line in lines]
    means = [None if cell is None else cell.mean / scale for cell in cells]
    bars = [None if cell is None or math.isinf(cell.half_width) else cell.half_width / scale for cell in cells]
    unit = "%" if column.percent else "x the first"
    return (
        Points(f"{column.title}, paper ({unit})", places, paper, [None] * len(places)),
        Points(f"{column.title}, ours ({unit}, mean and 95 %)", places, means, bars),
    )


def _markdown(comparisons: Sequence[Comparison], pictures: dict[str, list[Path]]) -> str:
    parts = ["# Ours beside the papers'", READING]
    for comparison in comparisons:
        parts.append(f"## {comparison.study.title} ({comparison.name})")
        parts.append(f"Paper: {comparison.study.source}.")
        for table in tables(comparison):
            parts += [f"**{table.title}**", table.markdown()]
        parts += list(sentences(comparison))
        parts += [f"![{comparison.study.title}]({picture.name})" for picture in _shown(pictures[comparison.name])]
    return "\n\n".join(parts) + "\n"


def _page(comparisons: Sequence[Comparison], pictures: dict[str, list[Path]]) -> str:
    body = ["<h1>Ours beside the papers'</h1>", f'<p class="note">{html.escape(READING)}</p>']
    for comparison in comparisons:
        title = html.escape(comparison.study.title)
        body.append(f"<h2>{title} ({html.escape(comparison.name)})</h2>")
        body += [_table(table) for table in tables(comparison)]
        body += [f"<p>{html.escape(sentence)}</p>" for sentence in sentences(comparison)]
        images = [base64.b64encode(picture.read_bytes()).decode() for picture in _shown(pictures[comparison.name])]
        body += [f'<img alt="{title}" src="data:image/png;base64,{image}">' for image in images]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = "<title>Ablations: ours beside the papers'</title>"
    content = "\n".join(body)
    page = f'<html lang="en">\n<head>{head}{title}<style>{STYLE}</style></head>\n<body>\n{content}\n</body>\n</html>'
    return f"<!doctype html>\n{page}\n"


def _shown(pictures: Sequence[Path]) -> list[Path]:
    """Those that a page shows."""
    return [picture for picture in pictures if picture.suffix == ".png"]


def _table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "\n".join(line(row, "td") for row in table.rows)
    caption = f"<caption>{html.escape(table.title)}</caption>"
    kind = ' class="words"' if table.ends_in_words else ""
    return f'<div class="wide"><table{kind}>{caption}\n{line(table.headings, "th")}\n{rows}</table></div>'
