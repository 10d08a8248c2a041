"""What an image costs on its way into a batch, stage by stage, and against the official pipeline.

Everything is CPU time of this process with one thread, so that a busy machine changes little. The official pipeline is
an image folder read by Pillow, torchvision's first transforms, and a normalised float batch.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from mae_lightning.data.manifest import Manifest
from mae_lightning.data.plan import Lanes, Slice
from mae_lightning.data.reading import Files, read_rows, stream_bytes
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.stream import MicroBatches
from mae_lightning.data.transforms import RandomResizedCropFlip

__all__ = ["STAGES", "Cost", "Official", "Ours", "measure", "pixel_difference", "write_image_folder"]

STAGES = ("read", "decode", "crop", "collate")
MAX_BATCH = 64
CONFIDENCE = 0.95
OFFICIAL_KINDS = ("jpg", "jpeg", "png", "webp", "bmp")


@dataclass(frozen=True)
class Cost:
    """The median of several rounds, with the bounds of a 95 % interval around it.

    The bounds are order statistics: they hold whatever the distribution, and need at least 6 rounds.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Cost:
        values, count = sorted(rounds), len(rounds)
        cut, outside = 0, 2 * 0.5**count
        while outside + 2 * math.comb(count, cut + 1) * 0.5**count <= 1 - CONFIDENCE:
            cut += 1
            outside += 2 * math.comb(count, cut) * 0.5**count
        return cls(statistics.median(values), values[cut], values[count - 1 - cut])


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


class Ours:
    """The package's own pipeline over some samples of shards on this machine.

    Args:
        manifest: The samples.
        make: Decodes and crops.
    """

    def __init__(self, manifest: Manifest, make: SampleMaker) -> None:
        self.manifest, self.make = manifest, make
        batch_size = min(MAX_BATCH, len(manifest))
        self.stream = MicroBatches(manifest, make, Slice(), batch_size, Lanes(), make.seed)
        self._files = Files(manifest)

    def whole(self, epoch: int) -> float:
        """CPU milliseconds an image as training has it: plan, reading, decoding, cropping, batching."""
        seconds = _seconds(lambda: [None for _ in self.stream.read(epoch)])
        return 1000 * seconds / (self.stream.num_steps * self.stream.batch_size)

    def stages(self, epoch: int) -> dict[str, float]:
        """CPU milliseconds an image by stage."""
        totals, clock = dict.fromkeys(STAGES, 0.0), time.process_time
        batch = self.make.blank(MAX_BATCH)
        for row in range(len(self.manifest)):
            times = [clock()]
            data = self._files.read(row)
            times.append(clock())
            image = self.make.decode(data, self.manifest.kind_of(row))
            times.append(clock())
            pixels = self.make.crop(image, int(self.manifest.place[row]), epoch)
            times.append(clock())
            batch[row % MAX_BATCH] = pixels
            times.append(clock())
            for stage, begin, end in zip(STAGES, times, times[1:], strict=False):
                totals[stage] += end - begin
        return {stage: 1000 * total / len(self.manifest) for stage, total in totals.items()}

    def plan(self, epoch: int) -> float:
        """CPU milliseconds an image of working out the order of an epoch."""
        return 1000 * _seconds(lambda: self.stream.order(epoch)) / len(self.manifest)

    def webdataset(self) -> float:
        """CPU milliseconds an image of reading by webdataset, as shards that can only stream are read."""
        rows = np.arange(len(self.manifest))
        return 1000 * _seconds(lambda: [None for _ in stream_bytes(self.manifest, rows)]) / len(rows)


class Official:
    """The official pipeline over an image folder.

    Args:
        folder: With one folder of images in it.
        make: Whose crop it takes, which must be `RandomResizedCropFlip`.
        mean: A channel's mean of pixels in 0..1.
        std: A channel's standard deviation.

    Raises:
        ValueError: The augmentation is another one.
    """

    def __init__(self, folder: Path, make: SampleMaker, mean: Sequence[float], std: Sequence[float]) -> None:
        crop = make.augmentation
        if type(crop) is not RandomResizedCropFlip:
            raise ValueError(f"the official pipeline has RandomResizedCropFlip, not {type(crop).__name__}")
        steps = [
            transforms.RandomResizedCrop(
                make.image_size, crop.scale, crop.ratio, transforms.InterpolationMode(crop.interpolation)
            ),
            *([transforms.RandomHorizontalFlip()] if crop.flip else []),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
        dataset = datasets.ImageFolder(str(folder), transforms.Compose(steps))
        self.loader = DataLoader(dataset, batch_size=min(MAX_BATCH, len(dataset)), shuffle=True, drop_last=True)

    def whole(self) -> float:
        """CPU milliseconds an image."""
        images = 0

        def read() -> None:
            nonlocal images
            for batch, _ in self.loader:
                images += len(batch)

        return 1000 * _seconds(read) / images


def write_image_folder(manifest: Manifest, folder: Path) -> None:
    """Every image as a file in one class folder, for the official pipeline.

    Raises:
        ValueError: There are images that it cannot read.
    """
    home = folder / "images"
    home.mkdir(parents=True)
    for row, data in read_rows(manifest, np.arange(len(manifest))):
        kind = manifest.kind_of(row)
        if kind not in OFFICIAL_KINDS:
            raise ValueError(f"{manifest.describe(row)}: the official pipeline reads no {kind}")
        (home / f"{row:06d}.{kind}").write_bytes(data)


def measure(ours: Ours, official: Official | None, rounds: int) -> dict[str, Cost]:
    """What everything costs, in rounds that take turns: all measures see the same machine.

    Args:
        ours: The package's own pipeline.
        official: What to compare with, if anything.
        rounds: How many; one more warms up.

    Returns:
        CPU milliseconds an image of each stage, of the `plan`, of reading by `webdataset`, of the `whole` and of the
        `official` pipeline; the `offset_share` and `webdataset_share` that reading and plan have of the whole either
        way; the `ratio` of the official pipeline to the whole.
    """
    measures: dict[str, Callable[[int], dict[str, float]]] = {
        "whole": lambda number: {"whole": ours.whole(number)},
        "stages": lambda number: ours.stages(number),
        "rest": lambda number: {"plan": ours.plan(number), "webdataset": ours.webdataset()},
    }
    if official is not None:
        measures["official"] = lambda number: {"official": official.whole()}
    names, found = list(measures), []
    with _one_thread():
        for number in range(rounds + 1):
            turn = number % len(names)
            costs: dict[str, float] = {}
            for name in names[turn:] + names[:turn]:
                costs |= measures[name](number)
            found.append(costs | _derived(costs))
    return {name: Cost.of([costs[name] for costs in found[1:]]) for name in found[0]}


def _derived(costs: dict[str, float]) -> dict[str, float]:
    pixels = sum(costs[stage] for stage in STAGES if stage != "read")
    shares = {
        f"{way}_share": (reading + costs["plan"]) / (reading + costs["plan"] + pixels)
        for way, reading in (("offset", costs["read"]), ("webdataset", costs["webdataset"]))
    }
    return shares | ({"ratio": costs["official"] / costs["whole"]} if "official" in costs else {})


def pixel_difference(manifest: Manifest, make: SampleMaker) -> float:
    """Mean absolute difference to Pillow and torchvision's first transforms on the same crops, of 255."""
    reference = replace(make, decoder="reference")
    differences = []
    for row, data in read_rows(manifest, np.arange(len(manifest))):
        ours, theirs = (
            each(data, manifest.kind_of(row), int(manifest.place[row]), 0).float() for each in (make, reference)
        )
        differences.append(float((ours - theirs).abs().mean()))
    return statistics.fmean(differences)
