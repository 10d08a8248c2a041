"""The ledger of a run over several starts, with a clock of our own."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from lightning import LightningModule, Trainer

from mae_lightning.callbacks import Goodput, goodput
from mae_lightning.callbacks.goodput import FILE, Ledger
from mae_lightning.data import ShardDataModule

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

    data, trainer = MagicMock(spec=ShardDataModule), MagicMock(spec=Trainer)
    data.configure_mock(waiting=nullcontext, bad_samples=SimpleNamespace(seen={}))
    trainer.configure_mock(
        datamodule=data,
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
    """One second for the data, four for the step, three in which a progress bar waits for the device."""
    with trainer.datamodule.waiting():
        clock.now += 1
    callback.on_train_batch_start(trainer, TASK, None, 0)
    clock.now += 4
    trainer.global_step += 1
    callback.on_train_batch_end(trainer, TASK, None, None, 0)
    clock.now += 3


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
    with trainer.datamodule.waiting():
        clock.now += 10
    callback.on_validation_end(trainer, TASK)
    step(callback, trainer, clock)
    callback.on_train_end(trainer, TASK)
    expected = Ledger(
        wall=5.0 + 3 * 8 + 2 + 5 + 5 + 2 * 8 + 10,
        stepping=3 * 7 + 4 + 2 * 7.0,
        waiting=6.0,
        validating=10.0,
        saving=2.0,
        starts=2,
        steps=6,
        replayed=1,
        reached=5,
    )
    assert callback.ledger == expected
    assert callback.ledger.goodput == pytest.approx(39 * (5 / 6) / 67)
    assert "goodput 49% of 67 s" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", '{"wall": 3.0, "st', "[1]", '{"unknown": 1}'])
def test_a_torn_ledger_is_begun_anew(text: str, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(text)
    callback, _ = start(tmp_path, clock, at_step=3)
    assert callback.ledger == Ledger(starts=1, reached=3)
    assert f"reading {tmp_path / FILE} failed, and the run goes on without: " in caplog.text
