"""Which samples form global batch k of an epoch, and who reads which part of it: pure functions, no state.

The order depends on the seed, the epoch, the global batch and the manifest alone. Ranks, accumulation and workers only
slice one table, so any topology trains the same run, and a resumed run reads on in the same table.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PADDING",
    "EpochOrder",
    "Lanes",
    "Slice",
    "default_lanes",
    "draw",
    "evaluation_order",
    "steps_of",
    "training_order",
]

PADDING = -1
SHUFFLE_BYTES = 2**31
"""What the shuffle buffers of all readers of a run hold together."""


def draw(*what: int | str) -> int:
    """A 63-bit number that depends on its arguments only: no process state, no salted hash."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class Lanes:
    """How an epoch is cut into contiguous ranges that are read side by side.

    Slot s of every global batch is filled from one lane at a time, lane (s, p) in the steps k with k mod phases = p. A
    reader of some slots, or of some phases, then opens only their lanes. One lane with an unbounded buffer is a true
    random permutation of the epoch, right for whatever can be read in any order.

    Attributes:
        slots: Parts of the global batch with lanes of their own; divides the global batch.
        phases: Lanes that take turns in one slot.
        buffer: No sample moves further than this many places in its lane; None shuffles whole lanes.
    """

    slots: int = 1
    phases: int = 1
    buffer: int | None = None


def default_lanes(batch_size: int, num_shards: int, mean_bytes: float, max_lanes: int) -> Lanes:
    """Lanes for shards that can only stream: phases first, so that workers share the reading, then slots for ranks.

    Args:
        batch_size: Global batch.
        num_shards: More lanes than shards would read each several times.
        mean_bytes: Of one image; all shuffle buffers together hold `SHUFFLE_BYTES`.
        max_lanes: Bound for containers whose beginning must be unpacked to reach their middle.
    """
    count = max(1, min(num_shards, max_lanes))
    phases = 1 << min(3, count.bit_length() - 1) if count > 1 else 1
    slots = max(part for part in range(1, count // phases + 1) if batch_size % part == 0)
    return Lanes(slots, phases, max(16, int(SHUFFLE_BYTES / (slots * phases * max(mean_bytes, 1)))))


@dataclass(frozen=True)
class EpochOrder:
    """One epoch of global batches.

    Attributes:
        line: The row of the manifest at each position, in reading order; `PADDING` where there is none.
        table: Positions in `line`, one row a global batch.
        bounds: Where each lane begins in `line`, and the end of the last.
    """

    line: NDArray[np.int64]
    table: NDArray[np.int64]
    bounds: NDArray[np.int64]


def steps_of(num_samples: int, batch_size: int, training: bool) -> int:
    """Global batches of an epoch: whole ones in training, enough for every sample in evaluation."""
    return num_samples // batch_size if training else -(-num_samples // batch_size)


def training_order(counts: NDArray[np.int64], batch_size: int, seed: int, epoch: int, lanes: Lanes) -> EpochOrder:
    """A shuffled epoch of whole global batches; a random rotation leaves another tail out each time.

    Args:
        counts: Samples of each container.
        batch_size: Global batch.
        seed: Of the run.
        epoch: From 0.
        lanes: How the epoch is cut.

    Raises:
        ValueError: There is not one whole global batch.
    """
    num_samples = int(counts.sum())
    steps = steps_of(num_samples, batch_size, training=True)
    if steps == 0:
        raise ValueError(
            f"{num_samples} training samples do not fill one global batch of {batch_size};"
            f" a global_batch_size of {num_samples} or less would"
        )
    random = np.random.RandomState(draw(seed, epoch) % 2**32)  # its streams are frozen for good (NEP 19)
    line = _end_to_end(counts, random.permutation(len(counts)))
    line = np.roll(line, -random.randint(num_samples))[: steps * batch_size]
    return _lay_out(line, steps, batch_size, lanes, random)


def evaluation_order(counts: NDArray[np.int64], batch_size: int, lanes: Lanes) -> EpochOrder:
    """Every sample exactly once, unshuffled; positions without a sample fill the last batches."""
    num_samples = int(counts.sum())
    steps = steps_of(num_samples, batch_size, training=False)
    line = np.full(steps * batch_size, PADDING, np.int64)
    line[:num_samples] = np.arange(num_samples)
    return _lay_out(line, steps, batch_size, lanes, random=None)


def _end_to_end(counts: NDArray[np.int64], containers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the manifest with its containers in another order."""
    lengths = counts[containers]
    starts = (np.cumsum(counts) - counts)[containers]
    shifts: NDArray[np.int64] = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return np.arange(len(shifts)) + shifts


def _lay_out(
    line: NDArray[np.int64], steps: int, batch_size: int, lanes: Lanes, random: np.random.RandomState | None
) -> EpochOrder:
    if batch_size % lanes.slots:
        raise ValueError(f"{lanes.slots} slots do not divide the global batch {batch_size}")
    phases, group = min(lanes.phases, steps), batch_size // lanes.slots
    table, bounds = np.empty((steps, lanes.slots, group), np.int64), [0]
    for slot, phase in itertools.product(range(lanes.slots), range(phases)):
        length = len(range(phase, steps, phases)) * group
        positions = bounds[-1] + _shuffled(length, lanes.buffer, random)
        table[phase::phases, slot] = positions.reshape(-1, group)
        bounds.append(bounds[-1] + length)
    return EpochOrder(line, table.reshape(steps, batch_size), np.array(bounds))


def _shuffled(length: int, buffer: int | None, random: np.random.RandomState | None) -> NDArray[np.int64]:
    """Places 0 to `length`, none moved by more than `buffer`: what a shuffle buffer of that size could emit."""
    places = np.arange(length)
    if random is None:
        return places
    if buffer is None:
        random.shuffle(places)
        return places
    return np.argsort(places + random.random_sample(length) * buffer, kind="stable")


@dataclass(frozen=True)
class Slice:
    """One rank's part of every global batch, in micro-batches.

    Attributes:
        rank: Of `world_size`.
        world_size: Ranks that share the global batch.
        accumulation: Micro-batches of one optimiser step.
    """

    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    def of(self, order: EpochOrder, first_step: int = 0, worker: int = 0, num_workers: int = 1) -> NDArray[np.int64]:
        """Positions of a worker's micro-batches from `first_step` on, one row each, in the loader's round robin."""
        shared = order.table.reshape(len(order.table), self.world_size, self.accumulation, -1)[first_step:, self.rank]
        return shared.reshape(-1, shared.shape[-1])[worker::num_workers]
