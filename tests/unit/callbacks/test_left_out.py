"""Which steps a run passes over, and how many it may."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from lightning import Trainer

from mae_lightning.callbacks import LeftOutSteps, left_out
from mae_lightning.callbacks.finite import NonFiniteError
from mae_lightning.tasks import Task

TASK = MagicMock(spec=Task)
TASK.configure_mock(steps_per_epoch=10)


class Tracker:
    def __init__(self) -> None:
        self.ready = self.completed = 0

    def increment_ready(self) -> None:
        self.ready += 1

    def increment_completed(self) -> None:
        self.completed += 1


def make_trainer(*, accumulates: bool = False) -> Any:
    trainer = MagicMock(spec=Trainer)
    step = Tracker()
    loop = SimpleNamespace(
        run=lambda *arguments: {"made": arguments}, optim_progress=SimpleNamespace(optimizer=SimpleNamespace(step=step))
    )
    trainer.configure_mock(
        is_global_zero=True,
        strategy=SimpleNamespace(broadcast=lambda value: value, barrier=lambda name: None),
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(automatic_optimization=loop), _should_accumulate=lambda: accumulates
        ),
        train_dataloader=None,
        _results=MagicMock(),
        global_step=0,
        tracker=step,
    )
    return trainer


def started(folder: Path, trainer: Any) -> LeftOutSteps:
    callback = LeftOutSteps(folder)
    callback.on_train_start(trainer, TASK)
    return callback


def test_three_steps_are_left_out_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (13, 7, 29):
        trainer = make_trainer()
        started(tmp_path, trainer).add(trainer, TASK, NonFiniteError("loss nan", step))
    assert "step 29 is left out (3 of at most 3 in a run)" in capsys.readouterr().out
    saved = [(entry["step"], entry["epoch"]) for entry in json.loads((tmp_path / left_out.FILE).read_text())]
    assert saved == [(13, 1), (7, 0), (29, 2)]
    with pytest.raises(
        ValueError, match=r"^loss nan; steps 13, 7, 29 were left out already \(.*\): --run.recover ends"
    ):
        started(tmp_path, trainer).add(trainer, TASK, NonFiniteError("loss nan", 30))


@pytest.mark.parametrize("accumulates", [False, True])
def test_a_step_is_passed_over_and_counted_once(tmp_path: Path, accumulates: bool) -> None:
    trainer = make_trainer()
    started(tmp_path, trainer).add(trainer, TASK, NonFiniteError("loss nan", 13))
    trainer = make_trainer(accumulates=accumulates)
    started(tmp_path, trainer)
    run = trainer.fit_loop.epoch_loop.automatic_optimization.run
    for step, made in ((12, {"made": (1, 2)}), (13, {}), (14, {"made": (1, 2)})):
        trainer.global_step = step
        assert run(1, 2) == made
    assert (trainer.tracker.ready, trainer.tracker.completed) == ((0, 0) if accumulates else (1, 1))
    trainer._results.reset.assert_called_once()


def test_a_run_that_leaves_nothing_out_is_as_it_was(tmp_path: Path) -> None:
    trainer = make_trainer()
    before = trainer.fit_loop.epoch_loop.automatic_optimization.run
    started(tmp_path, trainer)
    assert trainer.fit_loop.epoch_loop.automatic_optimization.run is before
