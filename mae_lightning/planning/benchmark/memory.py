"""The most memory that a training step takes, of each candidate alone."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from mae_lightning.planning.allocator import keep_freed_memory
from mae_lightning.planning.benchmark.contender import Contender, noise
from mae_lightning.planning.benchmark.peers import peer_of
from mae_lightning.planning.benchmark.ways import Candidate

STATUS = Path("/proc/self/status")
STEPS = 2
"""Until the optimiser's values are there beside all activations."""


def peak_of_process(candidate: Candidate, batch_size: int) -> int | None:
    """Bytes that training adds to a process of its own on the CPU, at their peak; None where the system does not say.

    What is imported does not count, so that no implementation pays for its package. Linux alone has the figures.
    """
    if not STATUS.exists():
        return None
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, candidate, batch_size, threads).result()


def _measure(candidate: Candidate, batch_size: int, threads: int) -> int:
    torch.set_num_threads(threads)
    if candidate.way.keeps_memory:
        keep_freed_memory()
    task = candidate.build("meta")
    if not candidate.way.is_ours:
        with torch.device("meta"):
            peer_of(candidate.way, task)  # imports what it takes
    before = _status("VmRSS")
    contender = Contender(candidate, torch.device("cpu"))
    for _ in range(STEPS):
        contender.step(contender.batch_of(noise(contender.image_shape, batch_size)))
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A line of the process's status in bytes: the memory that it has now, or has had at most."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])
