"""When the watchdog ends a process, and what it takes for a lost one."""

import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import RunningStage, TrainerFn, TrainerState

from mae_lightning.callbacks import TimeLimits, time_limits
from mae_lightning.callbacks.time_limits import Limits, Watchdog, lost_process, outlast
from mae_lightning.data import ShardDataModule

TASK = MagicMock(spec=LightningModule)
REMEDY = "the same command goes on"
GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"


@pytest.fixture
def expired(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the watchdog would have ended the process for."""
    reasons: list[str] = []

    def note(self: Watchdog, what: str, advice: str) -> None:
        reasons.append(what)
        self._ended.set()

    monkeypatch.setattr(time_limits, "TICK", 0.01)
    monkeypatch.setattr(Watchdog, "_expire", note)
    return reasons


def await_one(expired: list[str], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not expired and time.monotonic() < until:
        time.sleep(0.01)


def test_a_wait_over_its_limit_is_named(expired: list[str], tmp_path: Path) -> None:
    watchdog = Watchdog(Limits(read=0.05), tmp_path, REMEDY)
    with watchdog:
        watchdog.expect("step", "step 6")
        with watchdog.expecting("read", "step 7"):
            await_one(expired)
    assert expired == ["no batch came for step 7 within 0.05 s (--run.limits.read)"]


def test_each_wait_has_the_whole_limit(expired: list[str], tmp_path: Path) -> None:
    watchdog = Watchdog(Limits(step=0.4, read=0.4), tmp_path, REMEDY)
    with watchdog:
        for step in range(6):
            watchdog.expect("step", f"step {step}")
            time.sleep(0.05)
            with watchdog.expecting("read", f"step {step}"):
                time.sleep(0.05)
    assert expired == []


def test_no_limit_is_for_ever(expired: list[str], tmp_path: Path) -> None:
    watchdog = Watchdog(Limits(start=0.0, step=0.01), tmp_path, REMEDY)
    with watchdog:
        await_one(expired, 0.2)
    assert expired == []


def test_a_launched_process_that_fails_is_found(expired: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(time_limits, "GRACE", 0.05)
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as child:
        child.wait()
        observer = time_limits._ChildProcessObserver(0, [child], sleep_period=1)
        monkeypatch.setattr(observer, "_terminate_all", lambda: expired.append("Lightning's"))
        observer.start()
        with Watchdog(Limits(), tmp_path, REMEDY):
            await_one(expired)
        monkeypatch.setattr(observer, "_run", lambda: True)  # it ends
        observer.join()
    assert expired == ["at the start: the process of rank 1 ended with exit code 3"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "num_workers"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "num_workers"),
        (RuntimeError(GLOO), "another process of the run is gone"),
        (dist.DistBackendError("NCCL watchdog"), "another process of the run is gone"),
        (RuntimeError("CUDA error"), None),
        (ValueError("gloo/transport"), None),
        (None, None),
    ],
)
def test_what_torch_says_of_lost_processes(error: Exception | None, says: str | None) -> None:
    found = lost_process(error)
    assert found is None if says is None else says in str(found)


def lose_a_process(watchdog: Watchdog) -> None:
    with watchdog:
        watchdog.expect("step", "step 3")
        raise RuntimeError(GLOO)


def test_an_error_about_a_lost_process_is_one_line_and_leaves_stacks(tmp_path: Path) -> None:
    watchdog = Watchdog(Limits(), tmp_path / "run", REMEDY)
    with pytest.raises(
        ValueError,
        match=r"^at step 3: another process of the run is gone .*stacks-rank-0.txt; the same command goes on$",
    ):
        lose_a_process(watchdog)
    stacks = (tmp_path / "run/stacks-rank-0.txt").read_text()
    assert stacks.startswith("rank 0: at step 3: another process")
    assert "raise RuntimeError(GLOO)" in stacks
    assert "most recent call first" in stacks


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Watchdog(Limits(), tmp_path, REMEDY):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_negative_limits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^time limits are seconds, 0 for none, not -1$"):
        Limits(save=-1.0)


def test_torch_waits_longer_than_any_limit() -> None:
    strategy = DDPStrategy()
    before = strategy._timeout
    outlast(strategy, Limits(step=0.0))
    assert strategy._timeout > 1000 * before
    outlast(strategy, Limits(start=7200.0))
    assert strategy._timeout > timedelta(seconds=7200)


def test_what_a_run_waits_for(tmp_path: Path) -> None:
    """Everything until the first step is done is the start; then reading and saving are told from the rest."""
    waits: list[str] = []
    watchdog = Watchdog(Limits(), tmp_path, REMEDY)
    data, trainer = MagicMock(spec=ShardDataModule), MagicMock(spec=Trainer)
    data.waiting = nullcontext
    trainer.configure_mock(
        datamodule=data, global_step=4, save_checkpoint=lambda path: waits.append(f"{path}: {watchdog._wait.what}")
    )
    callback = TimeLimits(watchdog)

    def note(moment: str) -> None:
        waits.append(f"{moment}: {watchdog._wait.what}")

    trainer.configure_mock(state=TrainerState(fn=TrainerFn.FITTING, stage=RunningStage.TRAINING))
    callback.setup(trainer, TASK, "fit")
    for _ in range(2):
        with data.waiting():
            note("data")
        callback.on_train_batch_start(trainer, TASK, None, 0)
        note("step")
        callback.on_train_batch_end(trainer, TASK, None, None, 0)
        trainer.save_checkpoint("saved")
        note("between")
    trainer.state.stage = RunningStage.VALIDATING
    callback.on_validation_batch_start(trainer, TASK, None, 0)
    note("validation")
    assert watchdog._wait.place == "the validation after step 4"
    callback.on_validation_batch_end(trainer, TASK, None, None, 0)
    note("probes")
    callback.on_validation_end(trainer, TASK)
    note("again")
    trainer.state.stage = RunningStage.TRAINING
    callback.on_train_end(trainer, TASK)
    note("end")
    first = ["data: start", "step: start", "saved: save", "between: step"]
    second = ["data: read", "step: step", "saved: save", "between: step"]
    assert waits == [*first, *second, "validation: step", "probes: other", "again: step", "end: other"]
    assert watchdog._wait.place == "step 4"


def test_the_validation_before_training_is_a_part_of_the_start(tmp_path: Path) -> None:
    watchdog, trainer = Watchdog(Limits(), tmp_path, REMEDY), MagicMock(spec=Trainer)
    trainer.configure_mock(state=TrainerState(fn=TrainerFn.FITTING, stage=RunningStage.SANITY_CHECKING))
    callback = TimeLimits(watchdog)
    callback.on_validation_batch_start(trainer, TASK, None, 0)
    callback.on_validation_batch_end(trainer, TASK, None, None, 0)
    callback.on_validation_end(trainer, TASK)
    assert watchdog._wait.what == "start"


def test_a_validation_done_again_is_the_start_until_its_first_batch_is_done(tmp_path: Path) -> None:
    watchdog, trainer = Watchdog(Limits(), tmp_path, REMEDY), MagicMock(spec=Trainer)
    trainer.configure_mock(global_step=4, state=TrainerState(fn=TrainerFn.FITTING, stage=RunningStage.VALIDATING))
    callback, waits = TimeLimits(watchdog), []
    for batch in range(2):
        callback.on_validation_batch_start(trainer, TASK, None, batch)
        waits.append(watchdog._wait.what)
        callback.on_validation_batch_end(trainer, TASK, None, None, batch)
        waits.append(watchdog._wait.what)
    assert waits == ["start", "other", "step", "other"]


@pytest.mark.parametrize(
    ("command", "stage", "place"),
    [
        ("validation", RunningStage.VALIDATING, "the validation"),
        ("test", RunningStage.TESTING, "the test"),
    ],
)
def test_what_validate_and_test_wait_for(command: str, stage: RunningStage, place: str, tmp_path: Path) -> None:
    """Until the first batch is done it is the start, as in training."""
    watchdog, data, trainer = (
        Watchdog(Limits(), tmp_path, REMEDY),
        MagicMock(spec=ShardDataModule),
        MagicMock(spec=Trainer),
    )
    data.waiting = nullcontext
    trainer.configure_mock(datamodule=data, state=TrainerState(fn=TrainerFn(stage.value), stage=stage))
    callback = TimeLimits(watchdog)
    callback.setup(trainer, TASK, stage.value)
    waits: list[str] = []
    for batch in range(2):
        with data.waiting():
            waits.append(watchdog._wait.what)
        getattr(callback, f"on_{command}_batch_start")(trainer, TASK, None, batch)
        waits.append(watchdog._wait.what)
        getattr(callback, f"on_{command}_batch_end")(trainer, TASK, None, None, batch)
        waits.append(watchdog._wait.what)
    getattr(callback, f"on_{command}_end")(trainer, TASK)
    assert waits == ["start", "start", "other", "read", "step", "other"]
    assert (watchdog._wait.what, watchdog._wait.place) == ("other", place)
