"""Micro-batches of a rank, in the order of the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mae_lightning.data.batch import Batch
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.plan import PADDING, EpochOrder, Lanes, Slice, evaluation_order, steps_of, training_order
from mae_lightning.data.reading import Files, can_seek, stream_bytes
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.tars import DAMAGE
from mae_lightning.data.urls import Patience

__all__ = ["MicroBatches", "Parcel"]


class Parcel(TypedDict):
    """A micro-batch on its way from a worker, with what went wrong in it: a sample's index and the reason."""

    batch: Batch
    problems: list[tuple[int, str]]


class MicroBatches:
    """What one rank reads of an epoch.

    Args:
        manifest: The samples.
        make: Turns a sample's bytes into its tensor.
        part: This rank's part of each batch.
        batch_size: Of a batch over all ranks and micro-batches.
        lanes: How the epoch is cut.
        shuffle_seed: Seed of the training order; None for evaluation: unshuffled, every sample once.
        patience: With remote shards.
        repeats: Crops of each sample, side by side in one micro-batch; a batch has so many times fewer samples.
    """

    def __init__(
        self,
        manifest: Manifest,
        make: SampleMaker,
        part: Slice,
        batch_size: int,
        lanes: Lanes,
        shuffle_seed: int | None,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        repeats: int = 1,
    ) -> None:
        self.manifest = manifest
        self.make = make
        self.part = part
        self.batch_size = batch_size
        self.repeats = repeats
        self.lanes = lanes
        self.shuffle_seed = shuffle_seed
        self.patience = patience
        self._files: Files | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": None}  # open files stay in the process that opened them

    @property
    def num_steps(self) -> int:
        """Batches of an epoch over all ranks."""
        return steps_of(len(self.manifest), self.batch_size // self.repeats, training=self.shuffle_seed is not None)

    def __len__(self) -> int:
        """Micro-batches of an epoch on this rank."""
        return self.num_steps * self.part.accumulation

    def order(self, epoch: int) -> EpochOrder:
        """The global batches of an epoch, a column for each sample.

        Raises:
            ValueError: The training samples do not fill one.
        """
        counts, num_samples = self.manifest.counts, self.batch_size // self.repeats
        if self.shuffle_seed is None:
            return evaluation_order(counts, num_samples, self.lanes)
        return training_order(counts, num_samples, self.shuffle_seed, epoch, self.lanes)

    def read(self, epoch: int, first_step: int = 0, worker: int = 0, num_workers: int = 1) -> Iterator[Parcel]:
        """The micro-batches of an epoch from `first_step` on that fall to one of several workers."""
        order = self.order(epoch)
        micro_batches = self.part.of(order, first_step, worker, num_workers)
        seek = can_seek(self.manifest)
        fetch = self._by_offset if seek else _LaneReader(self.manifest, order, micro_batches, self.patience).read
        for positions in micro_batches:
            yield self._parcel(order.line[positions], positions, epoch, fetch)

    def _by_offset(self, row: int, position: int) -> bytes:
        if self._files is None:
            self._files = Files(self.manifest)
        return self._files.read(row)

    def _parcel(
        self, rows: NDArray[np.int64], positions: NDArray[np.int64], epoch: int, fetch: Callable[[int, int], bytes]
    ) -> Parcel:
        make = self.make.at(epoch)
        images = make.blank(len(rows) * self.repeats)
        valid, problems = torch.from_numpy(rows != PADDING), []
        for slot, (row, position) in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
            if row == PADDING:
                continue
            try:
                image = make.decode(fetch(row, position), self.manifest.kind_of(row))
                for repeat in range(self.repeats):
                    crop = make.crop(image, int(self.manifest.place[row]), epoch, repeat)
                    images[slot * self.repeats + repeat] = crop
            except DAMAGE as error:
                valid[slot] = False
                problems.append((int(self.manifest.place[row]), f"{self.manifest.describe(row)}: {error}"))
        return {"batch": self._batch(images, rows, valid), "problems": problems}

    def _batch(self, images: Tensor, rows: NDArray[np.int64], valid: Tensor) -> Batch:
        real = rows != PADDING
        label = torch.from_numpy(np.where(real, self.manifest.label[rows], -1))
        index = torch.from_numpy(np.where(real, self.manifest.place[rows], PADDING))
        if self.repeats == 1:
            return {"image": images, "label": label, "index": index, "valid": valid}
        label, index, valid = (values.repeat_interleave(self.repeats) for values in (label, index, valid))
        repeat = torch.arange(self.repeats).repeat(len(rows))
        return {"image": images, "label": label, "index": index, "valid": valid, "repeat": repeat}


class _LaneReader:
    """Samples of containers that can only stream: one sequential reader a lane, holding what came before its turn."""

    def __init__(
        self, manifest: Manifest, order: EpochOrder, micro_batches: NDArray[np.int64], patience: Patience
    ) -> None:
        wanted = np.sort(micro_batches, axis=None)
        wanted = wanted[order.line[wanted] != PADDING]
        lane = np.searchsorted(order.bounds, wanted, "right") - 1
        self._bounds = order.bounds
        self._streams = {
            int(number): stream_bytes(manifest, order.line[wanted[lane == number]], patience)
            for number in np.unique(lane)
        }
        self._held: dict[int, bytes | Exception] = {}

    def read(self, row: int, position: int) -> bytes:
        lane = int(np.searchsorted(self._bounds, position, "right")) - 1
        while row not in self._held:
            found, data = next(self._streams[lane])
            self._held[found] = data
        data = self._held.pop(row)
        if isinstance(data, Exception):
            raise ValueError(str(data))
        return data
