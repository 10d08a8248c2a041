"""Hangs and deaths of a run's processes are found within a time limit, and leave the stacks of all threads."""

import faulthandler
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import astuple, dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn

import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from mae_lightning.callbacks.preemption import REQUEUE_CODE
from mae_lightning.callbacks.waiting import around_waits

EXPIRED_CODE = 124
"""The exit code of a process that waited too long, as timeout(1) has it."""
TICK = 0.5
"""Seconds between two looks at the clock."""
LONGEST_TICK = 10 * TICK
"""A longer one means that the process itself was stopped, by Ctrl-Z for example: that time does not count."""
GRACE = 5.0
"""Seconds that the other processes get to find out for themselves, and to write their own stacks."""
RESERVE = 60.0
"""Seconds over the longest limit after which torch, or the thread that needs no interpreter, ends what we could not."""

FOR_EVER = timedelta(days=365)
"""What torch, which needs some number, is told where a limit is 0."""

START = "the start"
"""Where a process is before its first batch is done."""

What = Literal["start", "step", "read", "save", "other"]


@dataclass(frozen=True)
class Limits:
    """Seconds that each process of a run waits before it writes the stacks of its threads and ends; 0 is for ever.

    Args:
        start: Until its first step, of ``validate`` and ``test`` the first batch, is done: meeting the other processes,
            opening the data, compiling.
        step: For a batch of training, validation or test once it is read; other processes that hang are found here.
        read: For the next batch.
        save: For a checkpoint.
        other: For the end of a validation or test, with its probes and pictures, and for the end of the run.
    """

    start: float = 3600.0
    step: float = 900.0
    read: float = 900.0
    save: float = 1800.0
    other: float = 3600.0

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0:
            raise ValueError(f"time limits are seconds, 0 for none, not {min(astuple(self)):g}")

    @property
    def outlasting(self) -> float | None:
        """Seconds after which any of them is over; None if one is for ever."""
        return max(astuple(self)) + RESERVE if all(astuple(self)) else None


WAITED_FOR: dict[What, tuple[str, str]] = {
    "start": ("the first batch was not done", "another process did not come, or the data do not answer"),
    "step": ("a batch of {place} was not done", "another process hangs or is gone: look at its stacks too"),
    "read": ("no batch came for {place}", "a loader's worker hangs, or the shards' disk or server does not answer"),
    "save": ("the checkpoint of {place} was not written", "the disk or another process hangs"),
    "other": ("what follows {place} was not done", "a probe or picture takes longer, or another process hangs"),
}
"""What did not happen, and what may be the reason."""


@dataclass(frozen=True, eq=False)
class Wait:
    """What a process waits for, and where: at an optimiser step, in a validation, in the test."""

    what: What
    place: str


class Watchdog:
    """A thread that ends the process when what it waits for takes longer than its limit.

    It writes the stacks of all threads to stderr and to ``stacks-rank-N.txt``, says in one line what was waited for,
    ends the processes that this one has started, and leaves by ``os._exit``: the main thread may hang in C, in a
    collective or a system call, where no exception and no signal handler of Python's ever runs. Should it hold the
    interpreter's lock there, so that this thread cannot run either, faulthandler's own thread does the same a minute
    after the longest limit.

    It also takes the place of Lightning's observer of the processes that Lightning started, which kills the first
    process without a word. As a context it turns torch's errors about lost processes into one line.

    Args:
        limits: In seconds.
        folder: The run's folder.
        remedy: How the work comes to its end after all, for the message.
    """

    def __init__(self, limits: Limits, folder: Path, remedy: str) -> None:
        self.limits, self.folder, self.remedy = limits, folder, remedy
        self._wait = Wait("start", START)
        self._children: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()

    def expect(self, what: What, place: str) -> None:
        """From now on the process waits for this."""
        self._wait = Wait(what, place)

    @contextmanager
    def expecting(self, what: What, place: str) -> Iterator[None]:
        """Waits for this meanwhile, and then anew for what it waited for before."""
        before = self._wait
        self.expect(what, place)
        try:
            yield
        finally:
            self.expect(before.what, before.place)

    def __enter__(self) -> None:
        self.expect("start", START)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=(self._ended,), name="time limits", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()
        reason = lost_process(error)
        if error is not None and reason is not None:
            line = f"at {self._wait.place}: {reason}"
            stacks = self._write_stacks("".join([line, "\n", *traceback.format_exception(error)]))
            raise ValueError(f"{line}; stacks are in {stacks}; {self.remedy}")

    # ---------------------------------------------------------------- the thread

    def _watch(self, ended: threading.Event) -> None:
        wait, waited, alone, last = self._wait, 0.0, 0.0, time.monotonic()
        while not ended.wait(TICK):
            passed, last = min(LONGEST_TICK, time.monotonic() - last), time.monotonic()
            if self.limits.outlasting is not None:
                faulthandler.dump_traceback_later(self.limits.outlasting, exit=True, file=2)
            waited, wait = waited + passed if wait is self._wait else 0.0, self._wait
            limit = getattr(self.limits, wait.what)
            if limit and waited > limit:
                happened, advice = WAITED_FOR[wait.what]
                what = f"{happened.format(place=wait.place)} within {limit:g} s (--run.limits.{wait.what})"
                self._expire(what, advice)
            gone = self._gone()
            alone = alone + passed if gone else 0.0
            if gone and alone > GRACE:
                self._expire(f"at {wait.place}: {gone}", "the lines above may say why; memory may have been full")

    def _gone(self) -> str | None:
        """Which process that Lightning started has failed, in words."""
        for thread in threading.enumerate():
            if isinstance(thread, _ChildProcessObserver):
                thread._run = lambda: False  # type: ignore[method-assign]
                self._children = thread._child_processes
        for count, child in enumerate(self._children, 1):
            code = child.poll()
            if code not in (None, 0, REQUEUE_CODE):
                how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
                return f"the process of rank {self._rank + count} ended {how}"
        return None

    def _expire(self, what: str, advice: str) -> NoReturn:
        faulthandler.dump_traceback_later(2 * GRACE, exit=True, file=2)  # should the folder's disk hang
        faulthandler.dump_traceback(file=2)
        stacks = self._write_stacks(what)
        sys.stderr.write(
            f"error: rank {self._rank}: {what}; stacks of all threads are in {stacks}; {advice}; {self.remedy}\n"
        )
        sys.stderr.flush()
        self._end_others()
        os._exit(EXPIRED_CODE)

    def _write_stacks(self, text: str) -> Path:
        path = self.folder / f"stacks-rank-{self._rank}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.write(f"rank {self._rank}: {text}\n")
            for worker in multiprocessing.active_children():
                file.write(
                    f"its process {worker.pid} ({worker.name}) is {'stopped' if is_stopped(worker.pid) else 'there'}\n"
                )
            file.flush()
            faulthandler.dump_traceback(file)
        return path

    def _end_others(self) -> None:
        """Ends what would outlive this process: workers, the processes it launched, and who launched it if stopped."""
        for worker in multiprocessing.active_children():
            worker.kill()
        until = time.monotonic() + GRACE
        while time.monotonic() < until and any(c.poll() is None and not is_stopped(c.pid) for c in self._children):
            time.sleep(TICK / 10)
        for child in self._children:
            child.kill()
        if self._rank > 0 and is_stopped(os.getppid()):
            os.kill(os.getppid(), signal.SIGKILL)

    @property
    def _rank(self) -> int:
        return int(getattr(rank_zero_only, "rank", None) or 0)


def lost_process(error: BaseException | None) -> str | None:
    """What torch's errors about a dead worker or an unreachable process say, in one line; None for any other error."""
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and re.match(r"DataLoader worker \(pid.*(killed|exited)", text):
        return f"{text}; if memory was full, set fewer --data.init_args.num_workers"
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in text):
        return f"another process of the run is gone or does not answer ({text[:200]})"
    return None


def is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped, by SIGSTOP or Ctrl-Z; where /proc does not say, it is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False


def outlast(strategy: Strategy, limits: Limits) -> None:
    """Has torch wait longer for other processes than any limit, so that it is a limit that ends a wait and says why."""
    if hasattr(strategy, "_timeout"):
        strategy._timeout = FOR_EVER if limits.outlasting is None else timedelta(seconds=limits.outlasting)


class TimeLimits(Callback):
    """Tells the watchdog what the run waits for.

    Args:
        watchdog: Watches already.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog
        self._has_begun = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Times each saving of a checkpoint from now on, with all processes' waiting for it, and each wait for data."""
        save = trainer.save_checkpoint

        def timed(*arguments: Any, **options: Any) -> None:
            with self.watchdog.expecting("save", place_in(trainer)):
                save(*arguments, **options)

        trainer.save_checkpoint = timed  # type: ignore[method-assign]
        around_waits(trainer, lambda: self._reading(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The next step begins: what follows this one, then, but for the wait for its batch, the next itself."""
        self._has_begun = True
        self._expect("step", trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is there."""
        self._expect("step", trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The same in validation."""
        self._expect("step", trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After the last batch other callbacks may work long. A validation before training is a part of the start."""
        self._has_begun |= trainer.state.stage != RunningStage.SANITY_CHECKING
        self._expect("other", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training goes on, or the command comes to its end."""
        self._expect("step" if trainer.state.fn == TrainerFn.FITTING else "other", trainer)

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The loggers come to their end."""
        self._expect("other", trainer)

    def _expect(self, what: What, trainer: Trainer) -> None:
        if self._has_begun:
            self.watchdog.expect(what, place_in(trainer))

    def _reading(self, trainer: Trainer) -> AbstractContextManager[None]:
        return self.watchdog.expecting("read", place_in(trainer)) if self._has_begun else nullcontext()


def place_in(trainer: Trainer) -> str:
    """Where a trainer is, in words."""
    if trainer.state.stage == RunningStage.TESTING:
        return "the test"
    if trainer.state.stage not in (RunningStage.VALIDATING, RunningStage.SANITY_CHECKING):
        return f"step {trainer.global_step}"
    return "the validation" + (f" after step {trainer.global_step}" if trainer.state.fn == TrainerFn.FITTING else "")
