"""Writing shards: the same bytes for the same samples and options, after any interruption, by any number of threads."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mae_lightning.atomic import write_atomically
from mae_lightning.data.contents import Contents
from mae_lightning.data.decode import decode_stored
from mae_lightning.data.indexing import index_shards
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.manifest_file import MANIFEST_NAME, WORK_FOLDER, read_description, read_table, write_manifest
from mae_lightning.data.moments import Sums, add_image, mean_and_deviation
from mae_lightning.data.parallel import in_threads
from mae_lightning.data.plan import draw
from mae_lightning.data.shrinking import shrink
from mae_lightning.data.tars import DAMAGE
from mae_lightning.data.verify import sha256_of

__all__ = ["Packing", "pack"]

MEASURED_IMAGES = 32
MEMBER_BYTES = 2560
"""Of a sample's tar headers, label and padding, about."""


@dataclass(frozen=True)
class Packing:
    """How shards are made; all but the last two decide what bytes they have.

    Attributes:
        shard_megabytes: About how large a shard is.
        shard_samples: At most so many samples a shard; None for no such bound.
        shorter_side: Re-encode larger images as JPEG with this many pixels on their shorter side; None keeps bytes.
        quality: Of those JPEGs.
        shuffle: Whether the samples' order is drawn with the seed.
        seed: Of the order.
        max_bad_samples: How many images that cannot be decoded may be left out; more stop the work.
        workers: Shards written side by side.
    """

    shard_megabytes: float = 256.0
    shard_samples: int | None = None
    shorter_side: int | None = None
    quality: int = 92
    shuffle: bool = True
    seed: int = 0
    max_bad_samples: int = 0
    workers: int = 1

    def recipe(self) -> dict[str, Any]:
        """What the shards' bytes depend on."""
        return {name: value for name, value in asdict(self).items() if name not in ("max_bad_samples", "workers")}


@dataclass
class Facts:
    """What is known of a finished shard, kept beside it until all are done."""

    samples: int = 0
    sha256: str = ""
    heights: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    sums: Sums = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


def pack(
    splits: Mapping[str, Contents],
    folder: Path,
    options: Packing,
    extra_recipe: Mapping[str, Any] | None = None,
    done: Callable[[int], object] = lambda samples: None,
    warn: Callable[[str], object] = lambda reason: None,
) -> Path:
    """Write the shards of every split and their manifest; what an interrupted run finished is not done again.

    Args:
        splits: What to pack.
        folder: Where to; new, empty, or of an interrupted run of the same.
        options: How.
        extra_recipe: What else the result depends on, for the record.
        done: Called with a number of samples that are packed.
        warn: Called with every sample that is left out.

    Returns:
        The path of the manifest.

    Raises:
        FileNotFoundError: The folder holds the finished result, and a shard of it is gone.
        ValueError: The folder holds something else; an image cannot be decoded; the samples can only be read in order.
    """
    for name, contents in splits.items():
        if options.shuffle and contents.is_ordered:
            raise ValueError(f"the samples of '{name}' can only be read in their order; add --no-shuffle")
    digests = {name: contents.digest for name, contents in splits.items()}
    recipe = {**options.recipe(), **(extra_recipe or {}), "source": digests}
    if _begin(folder, recipe):
        done(sum(map(len, splits.values())))
        return folder / MANIFEST_NAME
    bad: list[str] = []
    facts = {name: _pack_split(name, contents, folder, options, done, bad) for name, contents in splits.items()}
    for reason in bad:
        warn(reason)
    path = _finish(folder, splits, facts, recipe)
    shutil.rmtree(folder / WORK_FOLDER)
    return path


def _begin(folder: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether the folder holds the finished result already; if not, it is ready to be worked in.

    Raises:
        FileNotFoundError: A shard of the result is gone.
        ValueError: It holds something else, or a shard has another size.
    """
    note = folder / WORK_FOLDER / "recipe.json"
    if (folder / MANIFEST_NAME).is_file():
        _compare(json.loads((folder / MANIFEST_NAME).read_text()).get("recipe"), recipe, folder)
        description = read_description(str(folder / MANIFEST_NAME))
        for split in description.splits:
            read_table(description, split)
        shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
        return True
    if note.is_file():
        _compare(json.loads(note.read_text()), recipe, folder)
    elif folder.exists() and any(entry.name != WORK_FOLDER for entry in folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder")
    else:
        write_atomically(note, json.dumps(recipe))
    return False


def _compare(before: Mapping[str, Any] | None, recipe: Mapping[str, Any], folder: Path) -> None:
    for name, now in recipe.items():
        if before is None or before.get(name) != now:
            what = "something else" if before is None else f"other shards ({name} differs)"
            raise ValueError(f"{folder} already holds {what}; name a new folder, or remove that one")


def _pack_split(
    name: str, contents: Contents, folder: Path, options: Packing, done: Callable[[int], object], bad: list[str]
) -> dict[str, Facts]:
    """Each shard's facts, by its name, in order; what is left out of them is added to `bad`."""
    order = np.arange(len(contents))
    if options.shuffle:
        order = np.random.RandomState(draw("pack", options.seed, name) % 2**32).permutation(order)
    parts = np.array_split(order, _num_shards(contents, options))
    names = [f"{name}-{number:05d}.tar" for number in range(len(parts))]
    stop = Event()
    facts: dict[str, Facts] = {}

    def write(job: tuple[str, NDArray[np.int64]]) -> Facts:
        return _pack_shard(folder, job[0], contents.select(job[1]), options, done, stop)

    jobs = zip(names, parts, strict=True)
    with closing(in_threads(write, jobs, options.workers, stop)) as written:
        for shard, found in zip(names, written, strict=True):
            bad += found.bad
            if len(bad) > (limit := options.max_bad_samples):
                raise ValueError(f"{bad[limit]} ({len(bad)} bad images so far, and max_bad_samples is {limit})")
            facts |= {shard: found} if found.samples else {}
    if not facts:
        raise ValueError(f"no image of '{name}' can be decoded")
    return facts


def _num_shards(contents: Contents, options: Packing) -> int:
    mean_bytes = contents.mean_bytes
    if mean_bytes is None or options.shorter_side is not None:
        some = np.unique(np.linspace(0, len(contents) - 1, MEASURED_IMAGES).astype(np.int64))
        images = _images(contents.select(some), options)
        mean_bytes = float(np.mean([len(data) for data, *_ in images if isinstance(data, bytes)] or [0]))
    per_shard = max(1, int(options.shard_megabytes * 10**6 / (mean_bytes + MEMBER_BYTES)))
    return -(-len(contents) // min(per_shard, options.shard_samples or per_shard))


def _images(contents: Contents, options: Packing) -> Iterator[tuple[bytes | Exception, str]]:
    """The images as they are to be stored."""
    for data, kind in contents.read(contents.rows):
        if options.shorter_side is None or kind == "npy" or isinstance(data, Exception):
            yield data, kind
            continue
        try:
            yield shrink(data, kind, options.shorter_side, options.quality)
        except DAMAGE as error:
            yield error, kind


def _pack_shard(
    folder: Path, name: str, contents: Contents, options: Packing, done: Callable[[int], object], stop: Event
) -> Facts:
    """Write one shard, unless that is done."""
    note = folder / WORK_FOLDER / f"{name}.json"
    if note.is_file():
        done(len(contents))
        return Facts(**json.loads(note.read_text()))
    facts, draft = Facts(), folder / WORK_FOLDER / name
    with draft.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for place, (data, kind) in enumerate(_images(contents, options)):
                if stop.is_set():
                    break
                _add_sample(tar, contents, place, data, kind, facts)
                done(1)
        file.flush()
        os.fsync(file.fileno())
    if facts.samples and not stop.is_set():
        facts.sha256 = sha256_of(str(draft))
        draft.replace(folder / name)
    if not stop.is_set():
        write_atomically(note, json.dumps(asdict(facts)))
    return facts


def _add_sample(
    tar: tarfile.TarFile, contents: Contents, place: int, data: bytes | Exception, kind: str, facts: Facts
) -> None:
    """Store a sample if its image can be decoded, else note the reason."""
    key, label = contents.keys[place], int(contents.labels[place])
    try:
        if isinstance(data, Exception):
            raise data
        pixels = decode_stored(data, kind)
    except DAMAGE as error:
        facts.bad.append(f"{contents.describe(int(contents.rows[place]))}: {error}")
        return
    _add_member(tar, f"{key}.{kind}", data)
    if label >= 0:
        _add_member(tar, f"{key}.cls", str(label).encode())
    facts.samples += 1
    add_image(facts.sums, pixels)
    facts.heights = _range(facts.heights, pixels.shape[0])
    facts.widths = _range(facts.widths, pixels.shape[1])


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)  # time, user and group are 0: the bytes depend on the sample alone
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def _range(bounds: Sequence[int], *values: int) -> list[int]:
    everything = [*bounds, *values]
    return [min(everything), max(everything)]


def _finish(
    folder: Path,
    splits: Mapping[str, Contents],
    facts: Mapping[str, Mapping[str, Facts]],
    recipe: Mapping[str, Any],
) -> Path:
    """Write the manifest of the finished shards."""
    manifests: dict[str, Manifest] = {name: index_shards(str(folder), list(facts[name])) for name in splits}
    shards = [shard for each in facts.values() for shard in each.values()]
    assert sum(map(len, manifests.values())) == sum(shard.samples for shard in shards)
    first = next(iter(splits))
    mean, std = mean_and_deviation(shard.sums for shard in facts[first].values())
    sizes = {
        "height": _range([], *(side for shard in shards for side in shard.heights)),
        "width": _range([], *(side for shard in shards for side in shard.widths)),
    }
    return write_manifest(
        folder,
        manifests,
        {name: [shard.sha256 for shard in facts[name].values()] for name in splits},
        class_names=splits[first].class_names,
        num_channels=len(mean),
        mean=mean,
        std=std,
        extra={
            "image_sizes": sizes,
            "left_out": sum(len(shard.bad) for shard in shards),
            "recipe": recipe,
        },
    )
