"""metrics.csv: one row a logged step, kept when a run goes on and when its disk is full."""

import csv
import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from mae_lightning.atomic import write_atomically
from mae_lightning.tracking.unfailing import Unfailing


class AppendingWriter(ExperimentWriter):
    """Lightning's writer, which deletes an earlier file; this one goes on from it.

    The first row written decides where: later rows, and those of its step with the same figures, belong to work that
    was lost and is done again. A write that fails changes nothing: its rows are written with the next ones.
    """

    def _check_log_dir_exists(self) -> None:
        """Reads the columns of an earlier file instead of deleting it."""
        self._path = Path(self.metrics_file_path)
        if self._path.is_file():
            self.metrics_keys = list(self._read()[0])

    def save(self) -> None:
        """Appends the rows since the last time; a new column has the whole file written anew."""
        if not self.metrics:
            return
        columns = sorted({*self.metrics_keys, *chain.from_iterable(self.metrics)})
        if columns == self.metrics_keys and self._path.is_file():
            self._append(self.metrics)
        else:
            self._replace(columns, [*(self._read()[1] if self._path.is_file() else []), *self.metrics])
        self.metrics_keys, self.metrics = columns, []

    def forget_from(self, step: int, figures: Collection[str]) -> None:
        """Drops the rows after this step, and of this step those that hold any of the figures."""
        if not self._path.is_file():
            return
        columns, rows = self._read()

        def is_kept(row: Mapping[str, str]) -> bool:
            at = int(row["step"])
            return at < step or (at == step and not any(row.get(name) for name in figures))

        self._replace(columns, filter(is_kept, rows))

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Nothing: the run's config.yaml holds them."""

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        with self._path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        return list(reader.fieldnames or []), rows

    def _append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        size = self._path.stat().st_size
        try:
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self.metrics_keys).writerows(rows)
        except OSError:
            with suppress(OSError):
                os.truncate(self._path, size)
            raise

    def _replace(self, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue())


class MetricsCSV(CSVLogger):
    """Writes ``metrics.csv`` into the run's folder and keeps what is there when the run goes on.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(save_dir=run_dir, name="", version="", flush_logs_every_n_steps=50)
        self._unfailing = Unfailing(f"writing {run_dir / 'metrics.csv'}")
        self._is_new = True
        self._lost: tuple[int, set[str]] | None = None

    @property
    def experiment(self) -> Any:
        """The writer on the first process; elsewhere a stand-in that takes every call."""
        if _is_first_process() and self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = AppendingWriter(log_dir=self.log_dir)
        return super().experiment

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Records a row; the first one after a resume replaces the rows of lost work."""
        if self._is_new and step is not None:
            self._is_new, self._lost = False, (step, set(metrics) - {"epoch"})
        super().log_metrics(metrics, step)

    def save(self) -> None:
        """Writes the rows; where that fails they are kept, and a warning says so once."""
        with self._unfailing:
            if self._lost is not None:
                self.experiment.forget_from(*self._lost)
                self._lost = None
            super().save()


def _is_first_process() -> bool:
    return int(getattr(rank_zero_only, "rank", 0)) == 0
