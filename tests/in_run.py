"""Callbacks for tests that look at a run from within."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.distributed.tensor import DTensor


class StopAt(Callback):
    """Sends a signal, from within the run, once.

    Args:
        moment: When; a validation is one of ``test``, too.
        signal: Which.
        target: Whom: the first process, the last, all of them, what started them, all of these and the loader's workers
            as one group, or a loader's worker of the last.
        times: How often, one after the other.
        after: Optimiser steps that are done before.
    """

    def __init__(
        self,
        moment: Literal["start", "step", "save", "validation"] = "step",
        signal: str = "SIGUSR1",
        target: Literal["first", "last", "all", "launcher", "group", "worker"] = "last",
        times: int = 1,
        after: int = 0,
    ) -> None:
        self.moment, self.signal, self.target, self.times, self.after = moment, signal, target, times, after
        self._done = False

    def _send(self, trainer: Trainer, moment: str) -> None:
        if self._done or moment != self.moment or trainer.global_step < self.after:
            return
        self._done = True
        rank, world = trainer.global_rank, trainer.world_size
        is_last = rank == world - 1
        meant = {"all": True, "last": is_last, "worker": is_last}.get(self.target, rank == 0)
        for _ in range(self.times if meant else 0):
            Path(trainer.default_root_dir, "struck").touch()
            if self.target == "group":  # from without: workers heed their parent
                command = ["kill", "-s", self.signal.removeprefix("SIG"), "--", f"-{os.getpgrp()}"]
                subprocess.run(command, start_new_session=True, check=True)
            else:
                os.kill(self._pid(), signal.Signals[self.signal])

    def _pid(self) -> int:
        if self.target == "worker":
            worker = multiprocessing.active_children()[0].pid
            assert worker is not None
            return worker
        return os.getppid() if self.target == "launcher" else os.getpid()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._send(trainer, "start")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._send(trainer, "step")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._send(trainer, "save")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._send(trainer, "validation")

    on_test_batch_start = on_validation_batch_start


class SameWeights(Callback):
    """Compares the weights of all processes when training ends, and says so."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        digest = hashlib.sha256()
        for parameter in pl_module.parameters():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            digest.update(whole.detach().cpu().numpy().tobytes())
        digests: list[str] = [""] * trainer.world_size
        dist.all_gather_object(digests, digest.hexdigest())
        assert len(set(digests)) == 1, digests
        if trainer.is_global_zero:
            print(f"the same weights on {trainer.world_size} ranks", flush=True)


class PlantNumber(Callback):
    """Makes a number of one step infinite or none, on the last process alone.

    Args:
        step: Which, or which ones.
        where: In the loss and so in the gradient, in the gradient alone, or in the normalised images.
        value: What stands there.
    """

    def __init__(self, step: int | list[int], where: Literal["loss", "gradient", "input"], value: str) -> None:
        self.steps, self.where, self.value = [step] if isinstance(step, int) else step, where, float(value)

    def _is_now(self, trainer: Trainer) -> bool:
        return trainer.global_step in self.steps and trainer.global_rank == trainer.world_size - 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def planted(module: Any, arguments: Any, images: Any) -> Any:
            return images * self.value if pl_module.training and self._is_now(trainer) else images

        if self.where == "input":
            pl_module.normalize.register_forward_hook(planted)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        if self.where != "input" and self._is_now(trainer):
            loss.register_hook(lambda gradient: gradient * self.value)
        if self.where == "loss" and self._is_now(trainer):
            loss.data.fill_(self.value)


def append(trainer: Trainer, name: str, line: dict[str, Any]) -> None:
    """Adds a line to this process's file in the run's folder; it is there whatever happens to the process."""
    with Path(trainer.default_root_dir, f"{name}-rank-{trainer.global_rank}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


class MemoryLedger(Callback):
    """Notes the resident memory of each process, in MiB, after every so many steps of its own."""

    def __init__(self, every: int = 20) -> None:
        self.every, self._steps = every, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        if self._steps % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            append(trainer, "memory", {"process": os.getpid(), "steps": self._steps, "resident": resident})


class PlantWhenTold(Callback):
    """Makes a gradient of the last process none, once for each time that a file ``plant`` is laid into the folder."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        told = Path(trainer.default_root_dir, "plant")
        if trainer.global_rank == trainer.world_size - 1 and told.exists():
            told.unlink()
            loss.register_hook(lambda gradient: gradient * float("nan"))


class SampleLedger(Callback):
    """Notes the samples of each step that the weights learnt from, in a file a process, over all starts of a run."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer, {"start": trainer.global_step})

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._place = {"step": trainer.global_step, "epoch": trainer.current_epoch}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs:  # it was not passed over
            self._note(trainer, {**self._place, "samples": batch["index"].tolist()})

    def _note(self, trainer: Trainer, line: dict[str, Any]) -> None:
        append(trainer, "samples", line)


def read_ledger(run: Path) -> dict[tuple[int, int], list[int]]:
    """The samples of each epoch and step that count: what a process did after its last checkpoint was lost with it."""
    counted: dict[tuple[int, int], list[int]] = {}
    for path in sorted(run.glob("samples-rank-*.jsonl")):
        own: dict[tuple[int, int], list[int]] = {}
        for line in map(json.loads, path.read_text().splitlines()):
            if "start" in line:
                own = {place: samples for place, samples in own.items() if place[1] < line["start"]}
            else:
                own.setdefault((line["epoch"], line["step"]), []).extend(line["samples"])
        for place, samples in own.items():
            counted.setdefault(place, []).extend(samples)
    return counted


class FillDisk(Callback):
    """Fills the disk that a folder lies on to the last byte.

    Args:
        folder: Which.
        step: After which step.
    """

    def __init__(self, folder: str, step: int) -> None:
        self.folder, self.step = Path(folder), step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
