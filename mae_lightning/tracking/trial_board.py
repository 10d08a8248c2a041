"""A trial on Weights & Biases: one run, whose stages have axes of their own."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from mae_lightning.tracking.loggers import WandbMode, build_loggers
from mae_lightning.tracking.unfailing import Unfailing

SHOWN = "shown.json"
FACTS = "trial"
"""Where a run's config holds what its settings and figures do not say: study, code, draws, stages."""


class TrialBoard:
    """Shows the stages' figures as ``STAGE/NAME`` over ``STAGE/step``, and the trial's own in the summary.

    The process that runs the trial is the only one that speaks to Weights & Biases, so it is one run under DDP too.

    Args:
        folder: The trial's folder, whose name is the run's.
        project: The project on Weights & Biases.
        mode: As for `build_loggers`.
        parameters: The trial's settings, for the columns of a sweep.
        study: The table or figure that it belongs to.
    """

    def __init__(
        self, folder: Path, project: str, mode: WandbMode, parameters: Mapping[str, str], study: str | None
    ) -> None:
        self.folder = folder
        loggers = build_loggers(folder, folder.name, project, mode)
        (self._run,) = (logger.experiment for logger in loggers if isinstance(logger, WandbLogger))
        self._unfailing = Unfailing("showing the trial on Weights & Biases", Exception)
        with self._unfailing:
            self._run.config.update({column(name): _plain(value) for name, value in parameters.items()})
            self._state({"study": study, "finished": False})
        path = folder / SHOWN
        self._shown: dict[str, int] = json.loads(path.read_text()) if path.is_file() else {}

    def show(self, stage: str, folder: Path) -> None:
        """Shows the rows of a stage's metrics.csv that were not shown before, also by an earlier process."""
        rows = _rows(folder / "metrics.csv")
        new = rows[self._shown.get(stage, 0) :]
        if not new:
            return
        with self._unfailing:
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            for row in new:
                self._run.log({f"{stage}/{name}": value for name, value in row.items()})
        self._shown[stage] = len(rows)
        (self.folder / SHOWN).write_text(json.dumps(self._shown))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes what the trial came to and ends the run."""
        figures = dict(record["metrics"])
        with self._unfailing:
            self._run.summary.update(figures)
            self._run.log(figures)
            self._state({name: record[name] for name in ("study", "finished", "code", "draws", "stages")})
            self._run.finish()

    def _state(self, facts: Mapping[str, Any]) -> None:
        self._run.config.update({FACTS: dict(facts)}, allow_val_change=True)


def column(parameter: str) -> str:
    """A setting's name in a run's config: with slashes, because W&B takes dots for nesting."""
    return parameter.replace(".", "/")


def _plain(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file that another process may be writing."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [{name: float(value) for name, value in row.items() if name and value} for row in csv.DictReader(lines)]
