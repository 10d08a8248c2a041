"""A contender in a process of its own, as its users run it: with the C library's own ways with memory."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from mae_lightning.planning.benchmark.contender import Contender, Turn
from mae_lightning.planning.benchmark.ways import Candidate

_ready: list[Contender] = []
"""What the process is for, in that process."""


class Apart:
    """Takes turns as a :class:`Contender` does, on the CPU, and is idle in between.

    In one process all would share an allocator, and what one frees would change the pace of the next.

    Args:
        candidate: What it is.
    """

    def __init__(self, candidate: Candidate) -> None:
        self.way, self.device = candidate.way, torch.device("cpu")
        self._process = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
        self.image_shape: tuple[int, ...] = self._ask(_build, candidate, torch.get_num_threads())

    def warm_up(self, batch_size: int) -> int:
        """Steps of a turn, after a few."""
        steps: int = self._ask(_warm_up, batch_size)
        return steps

    def turn(self, images: list[Tensor], steps: int) -> Turn:
        """Its time of a step."""
        turn: Turn = self._ask(_turn, [image.numpy() for image in images[:steps]], steps)
        return turn

    def close(self) -> None:
        """Ends the process."""
        self._process.shutdown()

    def _ask(self, work: Any, *given: Any) -> Any:
        return self._process.submit(work, *given).result()


def _build(candidate: Candidate, threads: int) -> tuple[int, ...]:
    torch.set_num_threads(threads)
    _ready.append(Contender(candidate, torch.device("cpu")))
    return _ready[0].image_shape


def _warm_up(batch_size: int) -> int:
    return _ready[0].warm_up(batch_size)


def _turn(images: list[Any], steps: int) -> Turn:
    return _ready[0].turn([torch.from_numpy(image) for image in images], steps)
