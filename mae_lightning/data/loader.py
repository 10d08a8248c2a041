"""Batches in the training process, from worker processes or none."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mae_lightning.data.batch import Batch
from mae_lightning.data.stream import MicroBatches, Parcel

__all__ = ["BadSamples", "Loader"]

log = logging.getLogger(__name__)


class BadSamples:
    """Counts samples that could not be read; each is named once.

    Args:
        limit: How many this process lets pass; 0 stops at the first.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.seen: dict[tuple[str, int], str] = {}

    def report(self, split: str, problems: list[tuple[int, str]]) -> None:
        """Note what went wrong in one micro-batch.

        Raises:
            ValueError: There are more bad samples than the limit; names the latest.
        """
        for place, reason in problems:
            if (split, place) in self.seen:
                continue
            self.seen[split, place] = reason
            if len(self.seen) > self.limit:
                passed = f" ({len(self.seen)} bad samples, and max_bad_samples is {self.limit})" if self.limit else ""
                raise ValueError(reason + passed)
            log.warning("skipped a bad sample (%d of at most %d): %s", len(self.seen), self.limit, reason)


def _unchanged(parcel: Any) -> Any:
    """A collation that leaves the workers' parcels as they are."""
    return parcel


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defers those that tell a run to go; for good in processes and threads that are started meanwhile.

    On Linux alone, which says who sent a signal.
    """
    if sys.platform != "linux":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed_the_parent_alone(worker: int) -> None:
    """Ends a worker, which was started with signals deferred, on its parent's SIGTERM: multiprocessing ends so.

    Signals to the whole group do nothing: told to go, a run needs its workers until the next step's end.
    """
    if sys.platform != "linux":
        return

    def heed() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=heed, name="signals", daemon=True).start()


class _Reading(IterableDataset[Parcel]):
    """The stream as each worker reads it: worker w of W gives micro-batches w, w + W, ..., the loader's round robin."""

    def __init__(self, stream: MicroBatches) -> None:
        self.stream = stream
        self._cursor = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def seek(self, epoch: int, step: int) -> None:
        """Begin the next iteration in `epoch`, after its first `step` batches; persistent workers see it too."""
        self._cursor.copy_(torch.tensor([epoch, step]))

    def __iter__(self) -> Iterator[Parcel]:
        epoch, step = self._cursor.tolist()
        worker = get_worker_info()
        yield from self.stream.read(epoch, step, *((worker.id, worker.num_workers) if worker else (0, 1)))


class Loader:
    """Batches of one split on this rank, from wherever `position` says that the run stands.

    Args:
        stream: What to read.
        position: Epoch and step at which the next iteration begins.
        split: For messages.
        bad_samples: Counts what cannot be read.
        waiting: What to be in while a batch is waited for.
        options: For torch's DataLoader: workers, pinning, time limit.
    """

    def __init__(
        self,
        stream: MicroBatches,
        position: Callable[[], tuple[int, int]],
        split: str,
        bad_samples: BadSamples,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        **options: Any,
    ) -> None:
        self.stream = stream
        self.split = split
        self._position = position
        self._bad_samples = bad_samples
        self._waiting = waiting
        self._reading = _Reading(stream)
        self._workers: DataLoader[Parcel] = DataLoader(
            self._reading,
            batch_size=None,
            collate_fn=_unchanged,
            worker_init_fn=_heed_the_parent_alone,
            **options,
        )

    def __len__(self) -> int:
        """Micro-batches of a whole epoch."""
        return len(self.stream)

    def __iter__(self) -> Iterator[Batch]:
        # Only now: Lightning asks for an iterator before it knows where a resumed run stands.
        self._reading.seek(*self._position())
        with _signals_deferred():
            parcels = iter(self._workers)
        while (parcel := self._next(parcels)) is not None:
            self._bad_samples.report(self.split, parcel["problems"])
            yield parcel["batch"]

    def _next(self, parcels: Iterator[Parcel]) -> Parcel | None:
        with self._waiting():
            return next(parcels, None)

    def close(self) -> None:
        """End the workers; left to the garbage collector, each takes 5 seconds to notice."""
        iterator = self._workers._iterator
        if iterator is not None and self._workers.num_workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]
            for worker in iterator._workers:  # type: ignore[attr-defined]
                if worker.is_alive():  # it hangs, and takes no signal that asks
                    worker.kill()
        self._workers._iterator = None
