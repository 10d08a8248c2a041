"""A comparison as rows of text, in Markdown, LaTeX and plain values."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from mae_lightning.tracking.comparison import AGREES, DIFFERS, OPEN, TIE, Cell, Comparison, Line, Verdict
from mae_lightning.tracking.studies import EQUAL, FLOPS, Column

NOTHING = "–"
READING = (
    "Ours: mean and 95 % interval after Student's t, over seeds, or over the draws of the shots of a single training."
    " Differences are paired by seed or draw; where the interval holds 0 they are a tie, and a single pair stays open."
    f" Differences of the paper's under {EQUAL} points count as equal. Intervals are not widened for the number of"
    " comparisons. Masked losses are never ranked across targets or ratios. FLOPs are of pretraining, forward and"
    " backward for one image, as multiples of the row marked *'s: counted, not measured."
)


@dataclass(frozen=True)
class Table:
    """A title and rows of text under headings.

    Attributes:
        title: What it is.
        headings: Of the columns.
        rows: Their cells.
        ends_in_words: Whether the last column is text, not figures.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    ends_in_words: bool = False

    def markdown(self) -> str:
        """As a Markdown table."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def latex(self) -> str:
        """As a table of LaTeX's with booktabs."""
        body = [" & ".join(map(_escaped, line)) + r" \\" for line in (self.headings, *self.rows)]
        columns = "l" + "r" * (len(self.headings) - 2) + ("l" if self.ends_in_words else "r")
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_escaped(self.title)}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                body[0],
                r"\midrule",
                *body[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


def tables(comparison: Comparison) -> list[Table]:
    """The table in the paper's shape, the differences, and where the figures come from."""
    found = [_figures(comparison)]
    if differences := _differences(comparison):
        found.append(differences)
    return [*found, _origins(comparison)]


def _figures(comparison: Comparison) -> Table:
    columns = comparison.study.columns
    sides = [f"{column.title}, {side}" for column in columns for side in ("paper", "ours")]
    rows = []
    for line in comparison.lines:
        label = line.row.label + (" *" if line is comparison.reference else "")
        cells = [text for column in columns for text in (_paper(line, column), _ours(comparison, line, column))]
        rows.append([label, *cells, *_costs(comparison, line), _seeds(line), _minutes(line)])
    title = f"{comparison.study.title}. {comparison.study.source}; ours: {comparison.name}"
    costs = [f"FLOPs, {side}" for side in _cost_sides(comparison)]
    return Table(title, ["", *sides, *costs, "seeds", "minutes a trial"], rows)


def _paper(line: Line, column: Column) -> str:
    value = line.row.paper.get(column.metric)
    return NOTHING if value is None else f"{value:.{column.digits}f}"


def _ours(comparison: Comparison, line: Line, column: Column) -> str:
    cell = line.cells.get(column.metric)
    if cell is None:
        return NOTHING
    scale = scale_of(comparison, column)
    spread = "" if math.isinf(cell.half_width) else f" ± {cell.half_width / scale:.{column.digits}f}"
    return f"{cell.mean / scale:.{column.digits}f}{spread}"


def scale_of(comparison: Comparison, column: Column) -> float:
    """What a column's figures are shown as multiples of."""
    reference = comparison.reference
    if not column.relative or reference is None or column.metric not in reference.cells:
        return 1.0
    return reference.cells[column.metric].mean


def flops_of(line: Line | None) -> float | None:
    """FLOPs of pretraining for one image, where a trial of the row counted them."""
    known = [trial.metrics[FLOPS] for trial in line.trials if FLOPS in trial.metrics] if line is not None else []
    return mean(known) if known else None


def _cost_sides(comparison: Comparison) -> list[str]:
    """Who has FLOPs to show: paper, ours, both or none."""
    known = {
        "paper": any(FLOPS in line.row.paper for line in comparison.lines),
        "ours": any(flops_of(line) is not None for line in comparison.lines),
    }
    return [side for side, is_known in known.items() if is_known]


def _costs(comparison: Comparison, line: Line) -> list[str]:
    shown = {"paper": NOTHING, "ours": NOTHING}
    if FLOPS in line.row.paper:
        shown["paper"] = f"{line.row.paper[FLOPS]:.1f}x"
    ours, reference = flops_of(line), flops_of(comparison.reference)
    if ours is not None:
        ratio = f"{ours / reference:.2f}x, " if reference else ""
        shown["ours"] = f"{ratio}{ours / 1e9:.3g} G"
    return [shown[side] for side in _cost_sides(comparison)]


def _seeds(line: Line) -> str:
    return ", ".join(str(trial.seed) for trial in sorted(line.trials, key=lambda trial: trial.seed)) or NOTHING


def _minutes(line: Line) -> str:
    return f"{mean(trial.seconds for trial in line.trials) / 60:.1f}" if line.trials else NOTHING


def _differences(comparison: Comparison) -> Table | None:
    rows = []
    for verdict in comparison.verdicts():
        scale = scale_of(comparison, verdict.column)
        paper = NOTHING if verdict.paper is None else f"{verdict.paper:+.{verdict.column.digits}f}"
        cells = [f"{verdict.first} – {verdict.second}", verdict.column.title, paper, _difference(verdict, scale)]
        rows.append([*cells, outcome(verdict)])
    if not rows:
        return None
    return Table("Differences to the row marked *", ["rows", "column", "paper", "ours (95 %)", "agreement"], rows, True)


def _difference(verdict: Verdict, scale: float) -> str:
    ours = verdict.ours
    if ours is None:
        return NOTHING
    middle, half, digits = ours.mean / scale, ours.half_width / scale, verdict.column.digits
    pairs = f"{ours.pairs} pair{'s' if ours.pairs > 1 else ''}"
    if ours.pairs == 1:
        return f"{middle:+.{digits}f}, {pairs}"
    return f"{middle:+.{digits}f} ({middle - half:+.{digits}f} to {middle + half:+.{digits}f}), {pairs}"


def outcome(verdict: Verdict) -> str:
    """The verdict in words."""
    words = {
        AGREES: "agrees",
        DIFFERS: "disagrees",
        TIE: "a tie: the interval holds 0",
        OPEN: "open: no common seed" if verdict.ours is None else "open: one pair tells nothing of chance",
        "": "the paper gives no figure",
    }
    return words[verdict.outcome]


def sentences(comparison: Comparison) -> Iterator[str]:
    """Whether the rankings agree, in words."""
    for column in comparison.study.columns:
        counts = comparison.ranking(column)
        total = sum(counts.values())
        if total:
            yield (
                f"{column.title}: of {total} pairs of rows with the paper's figures, {counts[AGREES]} agree,"
                f" {counts[DIFFERS]} disagree, {counts[TIE]} are ties of ours, {counts[OPEN]} are open."
            )
    if comparison.study.note:
        yield comparison.study.note


def _origins(comparison: Comparison) -> Table:
    rows = []
    for line in comparison.lines:
        for trial in sorted(line.trials, key=lambda trial: trial.seed):
            hashes = ", ".join(f"{name} {value}" for name, value in trial.hashes.items()) or NOTHING
            rows.append([line.row.label, str(trial.seed), trial.code, hashes])
    return Table("Where each figure comes from", ["row", "seed", "version and commit", "hashes"], rows, True)


def plain_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every cell as plain values, for JSON and for Weights & Biases."""
    rows = []
    for line in comparison.lines:
        for column in comparison.study.columns:
            cell: Cell | None = line.cells.get(column.metric)
            known = cell is not None
            rows.append(
                {
                    "study": comparison.name,
                    "row": line.row.label,
                    "figure": column.title,
                    "paper": line.row.paper.get(column.metric),
                    "ours": cell.mean if cell is not None else None,
                    "half width": cell.half_width if cell is not None and math.isfinite(cell.half_width) else None,
                    "values": len(cell.values) if cell is not None else 0,
                    "seeds": _seeds(line) if known else "",
                    "FLOPs": flops_of(line),
                    "code": ", ".join(sorted({trial.code for trial in line.trials})),
                }
            )
    return rows


def _escaped(text: str) -> str:
    marks = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$"}
    return "".join(marks.get(letter, letter) for letter in text)
