"""The ledger of a run over several starts, with a clock of our own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from lightning import LightningModule, Trainer

from mae_lightning.callbacks import Goodput, goodput
from mae_lightning.callbacks.goodput import Ledger

TASK = MagicMock(spec=LightningModule)


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(goodput, "time", clock)
    return clock


def start(folder: Path, clock: Clock, *, at_step: int) -> tuple[Goodput, Any]:
    """A start of the run: five seconds until the first step."""

    def save() -> None:
        clock.now += 2

    trainer = MagicMock(spec=Trainer)
    trainer.configure_mock(
        global_step=at_step,
        is_global_zero=True,
        strategy=SimpleNamespace(save_checkpoint=save),
        fast_dev_run=False,
        _logger_connector=SimpleNamespace(should_update_logs=True),
        loggers=[],
    )
    callback = Goodput(folder)
    callback.setup(trainer, TASK, "fit")
    clock.now += 5
    callback.on_train_start(trainer, TASK)
    callback.on_train_epoch_start(trainer, TASK)
    return callback, trainer


def step(callback: Goodput, trainer: Any, clock: Clock) -> None:
    """One second for the data, four for the step."""
    clock.now += 1
    callback.on_train_batch_start(trainer, TASK, None, 0)
    clock.now += 4
    trainer.global_step += 1
    callback.on_train_batch_end(trainer, TASK, None, None, 0)


def test_two_starts(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed after step 4, with the checkpoint of step 3: one step is made again."""
    callback, trainer = start(tmp_path, clock, at_step=0)
    for number in range(4):
        step(callback, trainer, clock)
        if number == 2:
            trainer.strategy.save_checkpoint()
    callback, trainer = start(tmp_path, clock, at_step=3)
    step(callback, trainer, clock)
    callback.on_validation_start(trainer, TASK)
    clock.now += 10
    callback.on_validation_end(trainer, TASK)
    step(callback, trainer, clock)
    callback.on_train_end(trainer, TASK)
    expected = Ledger(
        wall=5.0 + 4 * 5 + 2 + 5 + 2 * 5 + 10,
        stepping=6 * 4.0,
        waiting=6.0,
        validating=10.0,
        saving=2.0,
        starts=2,
        steps=6,
        replayed=1,
        reached=5,
    )
    assert callback.ledger == expected
    assert callback.ledger.goodput == pytest.approx(24 * (5 / 6) / 52)
    assert "goodput 38% of 52 s" in capsys.readouterr().out
