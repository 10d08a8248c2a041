"""A model that trains, one step at a time, with the time of each part."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mae_lightning.data import Batch
from mae_lightning.models import MaskedAutoencoder, repeated_blocks
from mae_lightning.optim import parameter_groups
from mae_lightning.planning.benchmark.peers import peer_of
from mae_lightning.planning.benchmark.plain import make_plain
from mae_lightning.planning.benchmark.rates import wait
from mae_lightning.planning.benchmark.ways import DTYPES, Candidate
from mae_lightning.tasks import MaskedPretraining

PARTS = ("embed", "encoder", "decoder", "loss", "forward", "backward", "optimiser")
"""Of a step, in their order. Where the forward pass cannot be looked into it is one part instead of four."""
MIDDLE = 127.5
"""Of a pixel in bytes: what the host makes of them when it is the host's task."""
LR, BETAS, WEIGHT_DECAY = 1e-4, (0.9, 0.95), 0.05
"""So small a rate that a few steps on noise leave every value finite."""
WARM_UP = 2
"""Turns of two steps: a first that compiles and chooses kernels, then those with the optimiser's values."""
TURN_SECONDS, MAX_STEPS = 0.5, 64


@dataclass(frozen=True)
class Turn:
    """One contender in one round.

    Attributes:
        seconds: Of a step.
        parts: Likewise, by part.
    """

    seconds: float
    parts: dict[str, float]


class Clock:
    """Splits a step into parts, on the device's own clock, without waiting for it.

    Args:
        device: Where the step runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """A step begins."""
        self._marks.append(("", self._now()))

    def mark(self, part: str) -> None:
        """A part ends here that began with the mark before."""
        self._marks.append((part, self._now()))

    def read(self) -> dict[str, float]:
        """Seconds of each part over all steps since the last reading; on a GPU, which has to be done with them."""
        seconds: dict[str, float] = {}
        for (_, begin), (part, end) in zip(self._marks, self._marks[1:], strict=False):
            if part:
                length = begin.elapsed_time(end) / 1000 if self._is_cuda else end - begin
                seconds[part] = seconds.get(part, 0.0) + length
        self._marks.clear()
        return seconds

    def _now(self) -> Any:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class Contender:
    """A candidate with weights, an optimiser and a clock.

    Args:
        candidate: What it is.
        device: Where it trains.
    """

    def __init__(self, candidate: Candidate, device: torch.device) -> None:
        self.candidate, self.device, self.clock = candidate, device, Clock(device)
        way = self.way = candidate.way
        task = candidate.build(device.type if way.is_ours else "meta")
        self.image_shape = (task.model.num_channels, *task.model.image_size)
        self.model = self._ours(task) if way.is_ours else self._peer(task)
        no_decay = task.model.no_weight_decay() if way.is_ours else ()
        groups = parameter_groups(self.model, WEIGHT_DECAY, no_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=way.fused or None)
        self.scaler = torch.amp.GradScaler(device.type, enabled=way.precision == "fp16")

    def batch_of(self, images: Tensor) -> Batch:
        """A batch on the host, made of images in bytes as the processes that load data make it."""
        if self.way.takes_floats:
            images = images.float() / MIDDLE - 1
        index = torch.randint(2**31, (len(images),))
        valid = torch.ones(len(images), dtype=torch.bool)
        batch = Batch(image=images, label=index, index=index, valid=valid)
        return _moved(batch, Tensor.pin_memory) if self.device.type == "cuda" else batch

    def step(self, batch: Batch) -> None:
        """Copies the batch, computes the loss and its gradients, and updates the weights."""
        if self.way.compiled == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self.clock.start()
        batch = _moved(batch, lambda part: part.to(self.device, non_blocking=True))
        with self._autocast():
            loss = self._loss(batch)
        self.clock.mark("loss" if self._is_open else "forward")
        if self.way.waits:
            loss.item()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.clock.mark("backward")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.clock.mark("optimiser")

    def warm_up(self, batch_size: int) -> int:
        """Runs a few steps, and returns how many a turn takes to last long enough to be timed."""
        seconds = 0.0
        for _ in range(WARM_UP):
            seconds = self.turn([noise(self.image_shape, batch_size)], 1).seconds
        return max(1, min(MAX_STEPS, math.ceil(TURN_SECONDS / seconds)))

    def turn(self, images: list[Tensor], steps: int) -> Turn:
        """Times some steps on batches of images in bytes, which it goes through again if they are fewer.

        A step before them is not timed: in a training step follows step, and the first after the turns of others is
        slower than those that follow it.
        """
        batches = [self.batch_of(image) for image in images[:steps]]
        self.step(batches[0])
        wait(self.device)
        self.clock.read()
        start = time.perf_counter()
        for number in range(steps):
            self.step(batches[number % len(batches)])
        wait(self.device)
        seconds = time.perf_counter() - start
        return Turn(seconds / steps, {part: total / steps for part, total in self.clock.read().items()})

    # ---------------------------------------------------------------- models

    def _ours(self, task: MaskedPretraining) -> nn.Module:
        task.to(self.device).train()
        model = task.model
        if self.way.plain:
            assert isinstance(model, MaskedAutoencoder)
            make_plain(model, self.way.plain)
        self._loss: Callable[[Batch], Tensor] = lambda batch: task.loss(batch, epoch=0)
        is_open = self.way.compiled in ("none", "blocks") and isinstance(model, MaskedAutoencoder)
        self._open(_ends_of_ours(model) if is_open else {})
        if self.way.compiled == "blocks":
            for block in repeated_blocks(model):
                block.compile()
        elif self.way.compiled != "none":
            model.compile(mode="reduce-overhead" if self.way.compiled == "graphs" else None)
        return model

    def _peer(self, task: MaskedPretraining) -> nn.Module:
        model: Any = peer_of(self.way, task)
        self._loss = lambda batch: model(batch["image"])
        self._open(model.ends)
        moved: nn.Module = model.to(self.device).train()
        return moved

    def _open(self, ends: Mapping[str, nn.Module]) -> None:
        """Looks into the forward pass: a part ends when its module has run."""
        self._is_open = bool(ends)
        for part, module in ends.items():
            module.register_forward_hook(lambda *_, part=part: self.clock.mark(part))

    def _autocast(self) -> AbstractContextManager[object]:
        if self.way.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.way.precision])


def noise(image_shape: tuple[int, ...], batch_size: int) -> Tensor:
    """Fresh images in bytes, on the host."""
    return torch.randint(256, (batch_size, *image_shape), dtype=torch.uint8)


def _ends_of_ours(model: Any) -> dict[str, nn.Module]:
    return {"embed": model.encoder.norm_pre, "encoder": model.encoder.norm, "decoder": model.decoder_pred}


def _moved(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    return Batch(
        image=move(batch["image"]), label=move(batch["label"]), index=move(batch["index"]), valid=move(batch["valid"])
    )
