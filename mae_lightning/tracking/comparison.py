"""Ours beside the paper's: cells with intervals, paired differences, and whether the rankings agree."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Any

import yaml

from mae_lightning.evaluation.paired import PairedDifference, paired_difference, t_quantile
from mae_lightning.secrets import HIDDEN
from mae_lightning.tracking.studies import EQUAL, Column, Row, Study, find_study
from mae_lightning.tracking.trials import TrialRecord

AGREES, DIFFERS, TIE, OPEN = "agrees", "disagrees", "tie", "open"
PERCENT = 100.0
OVERLAY, NO_OVERLAY = ".config", "none"
HARMLESS = ("trainer/", "logging/", NO_OVERLAY)
Key = tuple[int, ...]
"""What pairs values: a seed, or a seed and a draw."""


@dataclass(frozen=True)
class Cell:
    """One of our figures.

    Attributes:
        values: By what pairs them; shares in percent.
    """

    values: Mapping[Key, float]

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return mean(self.values.values())

    @property
    def half_width(self) -> float:
        """Half of the mean's 95 % interval after Student's t; infinite for one value."""
        count = len(self.values)
        if count == 1:
            return math.inf
        return stdev(self.values.values()) / math.sqrt(count) * t_quantile(0.975, count - 1)


@dataclass(frozen=True)
class Line:
    """A row of the table with what was measured.

    Attributes:
        row: As the paper has it.
        trials: Ours, one a seed.
        cells: Ours by metric, where there is a figure.
    """

    row: Row
    trials: Sequence[TrialRecord]
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Verdict:
    """Two rows compared in one column.

    Attributes:
        first: Label of the one.
        second: Label of the other.
        column: Where.
        paper: The paper's difference, first less second; None where it gives none.
        ours: Our paired difference; None without a common seed.
    """

    first: str
    second: str
    column: Column
    paper: float | None
    ours: PairedDifference | None

    @property
    def outcome(self) -> str:
        """Whether ours agrees with the paper's order; a tie settles nothing unless the paper has one, too."""
        if self.ours is None or self.ours.pairs == 1:
            return OPEN
        if self.paper is None:
            return TIE if self.ours.is_tie else ""
        if self.column.percent and abs(self.paper) < EQUAL:
            return AGREES if self.ours.is_tie else DIFFERS
        if self.ours.is_tie:
            return TIE
        return AGREES if (self.ours.mean > 0) == (self.paper > 0) else DIFFERS


@dataclass(frozen=True)
class Comparison:
    """A study's table: the paper's figures and ours.

    Attributes:
        name: The study with its scale.
        study: What is compared.
        lines: In the paper's order, then values of ours that the paper lacks.
        reference: The row that the others are compared with; None where there is nothing to compare.
    """

    name: str
    study: Study
    lines: Sequence[Line]
    reference: Line | None

    def verdicts(self) -> Iterator[Verdict]:
        """Each measured row against the reference, column by column."""
        for column in self.study.columns:
            for line in self.lines:
                if self.reference is not None and line is not self.reference and column.metric in line.cells:
                    yield self._verdict(line, self.reference, column)

    def ranking(self, column: Column) -> dict[str, int]:
        """Of all pairs of rows that both sides have figures for, how many orders agree, disagree, tie or are open."""
        counts = dict.fromkeys((AGREES, DIFFERS, TIE, OPEN), 0)
        known = [line for line in self.lines if column.metric in line.cells and column.metric in line.row.paper]
        for one, other in combinations(known, 2):
            counts[self._verdict(one, other, column).outcome] += 1
        return counts

    def _verdict(self, one: Line, other: Line, column: Column) -> Verdict:
        metric = column.metric
        published = [line.row.paper.get(metric) for line in (one, other)]
        paper = published[0] - published[1] if None not in published else None  # type: ignore[operator]
        sides = [line.cells.get(metric, Cell({})).values for line in (one, other)]
        common = sorted(sides[0].keys() & sides[1].keys())
        ours = paired_difference(*[[side[key] for key in common] for side in sides]) if common else None
        return Verdict(one.row.label, other.row.label, column, paper, ours)


def why_left_out(trial: TrialRecord) -> str | None:
    """Why a trial has no place in its study's table; None where it has one."""
    try:
        study, _ = find_study(trial.study)
    except ValueError as error:
        return f"{trial.folder}: {error}"
    try:
        _place(trial, study)
    except ValueError as error:
        return str(error)
    return None


def compare(trials: Sequence[TrialRecord]) -> list[Comparison]:
    """The studies that the trials belong to.

    Raises:
        ValueError: A study is unknown, or two trials of one are the same.
    """
    by_study: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        by_study.setdefault(trial.study, []).append(trial)
    return [_compare(name, members) for name, members in by_study.items()]


def _compare(name: str, trials: Sequence[TrialRecord]) -> Comparison:
    study, is_small = find_study(name)
    groups: dict[int, list[TrialRecord]] = {}
    rows = list(study.rows)
    for trial in trials:
        place = next((number for number, row in enumerate(rows) if _is_of(trial, study, row, is_small)), None)
        if place is None:
            value = _place(trial, study)
            rows.append(Row(_label(study, value), value, small=value))
            place = len(rows) - 1
        groups.setdefault(place, []).append(trial)
    known = len(study.rows)
    extra = sorted(range(known, len(rows)), key=lambda number: _sortable(rows[number].value))
    drawn = _drawn(list(groups.values()), study)
    lines = [_line(rows[number], groups.get(number, []), study, drawn) for number in (*range(known), *extra)]
    measured = [line for line in lines if line.cells]
    reference = next((line for line in measured if line.row.is_default), measured[0] if measured else None)
    return Comparison(name, study, lines, reference)


def _is_of(trial: TrialRecord, study: Study, row: Row, is_small: bool) -> bool:
    wanted = row.small if is_small and row.small is not None else row.value
    return bool(_place(trial, study) == wanted)


def _place(trial: TrialRecord, study: Study) -> Any:
    """The axis' value; of several settings all of theirs."""
    if study.combined:
        return tuple(_value(trial, axis) for axis in study.combined)
    return _value(trial, study.axis)


def _label(study: Study, value: Any) -> str:
    if study.combined:
        return ", ".join(
            f"{word} {part}" for word, part in zip(study.combined.values(), map(_short, value), strict=True)
        )
    return str(value)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(trial: TrialRecord, axis: str) -> Any:
    """The axis' value as a number, a truth value or text; overlays without those that change no result."""
    if axis not in trial.parameters:
        raise ValueError(f"{trial.folder} belongs to {trial.study} and does not set {axis}")
    text = trial.parameters[axis]
    if text == HIDDEN:
        raise ValueError(f"{trial.folder} hides its value of {axis}; run its trial again, which writes it down")
    if axis.endswith(OVERLAY):
        return "+".join(name for name in text.split("+") if not name.startswith(HARMLESS)) or NO_OVERLAY
    try:
        return float(text)
    except ValueError:
        return yaml.safe_load(text)


def _sortable(value: Any) -> list[tuple[bool, float, str]]:
    parts = value if isinstance(value, tuple) else (value,)
    numbers = [isinstance(part, int | float) for part in parts]
    return [(not n, float(part) if n else 0.0, str(part)) for n, part in zip(numbers, parts, strict=True)]


def _drawn(groups: Sequence[Sequence[TrialRecord]], study: Study) -> set[str]:
    """The figures that pair by draw: those that every row's only trial has draws of. All others pair by seed."""
    if any(len(trials) > 1 for trials in groups):
        return set()
    with_figure = {
        column.metric: [trial for (trial,) in groups if column.metric in trial.metrics] for column in study.columns
    }
    return {metric for metric, trials in with_figure.items() if all(metric in trial.draws for trial in trials)}


def _line(row: Row, trials: Sequence[TrialRecord], study: Study, drawn: Collection[str]) -> Line:
    seeds = [trial.seed for trial in trials]
    if len(set(seeds)) < len(seeds):
        folders = ", ".join(str(trial.folder) for trial in trials)
        raise ValueError(f"{row.label}: several trials have one seed, name one of them: {folders}")
    cells = {column.metric: _cell(trials, column, column.metric in drawn) for column in study.columns}
    return Line(row, trials, {metric: cell for metric, cell in cells.items() if cell.values})


def _cell(trials: Sequence[TrialRecord], column: Column, is_drawn: bool) -> Cell:
    """Values by seed, or by seed and draw."""
    factor = PERCENT if column.percent else 1.0
    if is_drawn:
        draws = ((trial.seed, trial.draws.get(column.metric, ())) for trial in trials)
        return Cell({(seed, n): factor * value for seed, values in draws for n, value in enumerate(values)})
    found = ((trial.seed, trial.metrics.get(column.metric)) for trial in trials)
    return Cell({(seed,): factor * value for seed, value in found if value is not None})
