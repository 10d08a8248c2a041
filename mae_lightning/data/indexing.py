"""Building a manifest from what is there: shards, read once by their headers, or image files."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mae_lightning.data.manifest import IMAGE_KINDS, Manifest
from mae_lightning.data.parallel import in_threads
from mae_lightning.data.strings import Strings
from mae_lightning.data.tars import TarSample, is_gzipped, read_samples
from mae_lightning.data.urls import is_remote, open_url, public_name

__all__ = [
    "UNLABELLED",
    "class_folders",
    "hash_shards",
    "image_names",
    "index_files",
    "index_shards",
    "is_image_name",
]

UNLABELLED = -1
BLOCK = 2**20
MAX_CLASS = 2**63 - 1


def index_shards(base: str, names: Sequence[str]) -> Manifest:
    """The manifest of shards, in the order given.

    Args:
        base: Folder or URL that `names` are relative to.
        names: The shards.

    Raises:
        FileNotFoundError: A shard is not there.
        ValueError: A shard is damaged or empty, or a sample has no image, or a label that is missing or not an integer.
    """
    return _joined(base, names, [_index_shard(f"{base}/{name}" if base else name) for name in names])


def hash_shards(
    base: str, names: Sequence[str], workers: int = 1, done: Callable[[int], object] = lambda samples: None
) -> tuple[Manifest, list[str]]:
    """The manifest of shards and their sha256, from one pass over every byte.

    Args:
        base: As `index_shards`.
        names: As `index_shards`.
        workers: Shards read side by side.
        done: Called with the samples of each shard that is through.

    Raises:
        FileNotFoundError: As `index_shards`.
        ValueError: As `index_shards`.
    """
    columns = []
    for shard in in_threads(lambda name: _index_shard(f"{base}/{name}" if base else name, whole=True), names, workers):
        columns.append(shard)
        done(len(shard.keys))
    return _joined(base, names, columns), [shard.sha256 for shard in columns]


def _joined(base: str, names: Sequence[str], columns: Sequence[_Shard]) -> Manifest:
    manifest = Manifest(
        base=base,
        packed=True,
        containers=Strings.pack(names),
        container_bytes=np.array([shard.stored_bytes for shard in columns], np.int64),
        container=np.repeat(np.arange(len(names)), [len(shard.keys) for shard in columns]),
        keys=Strings.pack(itertools.chain.from_iterable(shard.keys for shard in columns)),
        kind=np.concatenate([np.array(shard.kinds, np.uint8) for shard in columns]),
        offset=np.concatenate([np.array(shard.offsets, np.int64) for shard in columns]),
        size=np.concatenate([np.array(shard.sizes, np.int64) for shard in columns]),
        label=np.concatenate([np.array(shard.labels, np.int64) for shard in columns]),
        place=np.arange(sum(len(shard.keys) for shard in columns)),
    )
    unlabelled = np.flatnonzero(manifest.label == UNLABELLED)
    if 0 < len(unlabelled) < len(manifest):
        raise ValueError(f"{manifest.describe(int(unlabelled[0]))} has no label (.cls), and others have one")
    return manifest


def index_files(base: str, names: Sequence[str], labels: Iterable[int]) -> Manifest:
    """The manifest of image files under the folder `base`, in the order given."""
    count = len(names)
    kinds = [IMAGE_KINDS.index(Path(name).suffix[1:].lower()) for name in names]
    return Manifest(
        base=base,
        packed=False,
        containers=Strings.pack(names),
        container_bytes=np.zeros(count, np.int64),
        container=np.arange(count),
        keys=Strings.pack(str(Path(name).with_suffix("")) for name in names),
        kind=np.array(kinds, np.uint8),
        offset=np.zeros(count, np.int64),
        size=np.zeros(count, np.int64),
        label=np.fromiter(labels, np.int64, count),
        place=np.arange(count),
    )


@dataclass
class _Shard:
    """Columns of one shard's samples."""

    stored_bytes: int = 0
    sha256: str = ""
    keys: list[str] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, sample: TarSample) -> None:
        kind = _image_kind(sample)
        image = sample.members[IMAGE_KINDS[kind]]
        self.keys.append(sample.key)
        self.kinds.append(kind)
        self.offsets.append(image.offset)
        self.sizes.append(image.size)
        self.labels.append(UNLABELLED if sample.label is None else _label(sample))


class _Hashing(io.RawIOBase):
    """A stream's bytes in order, counted and hashed on their way."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._stream.readinto(buffer)
        self.sha256.update(buffer[:count])
        self.size += count
        return count


def _index_shard(url: str, whole: bool = False) -> _Shard:
    """One shard's columns; its size and checksum too where it is read as a whole."""
    shard = _Shard()
    try:
        with open_url(url) as stored:
            hashing = _Hashing(stored)
            stream: io.BufferedReader = io.BufferedReader(hashing, BLOCK) if whole else stored
            for sample in read_samples(stream, is_gzipped(url)):
                shard.add(sample)
            while whole and stream.read(BLOCK):
                pass
        if whole:
            shard.stored_bytes, shard.sha256 = hashing.size, hashing.sha256.hexdigest()
        elif not is_remote(url):
            shard.stored_bytes = Path(url.removeprefix("file://")).stat().st_size
        if not shard.keys:
            raise ValueError("the shard has no samples")
    except FileNotFoundError:
        raise FileNotFoundError(f"no shard at {public_name(url)}; give the path of a .tar or .tar.gz file") from None
    except ValueError as error:
        raise ValueError(f"{public_name(url)}: {error}") from None
    return shard


def _image_kind(sample: TarSample) -> int:
    kinds = [place for place, kind in enumerate(IMAGE_KINDS) if kind in sample.members]
    if len(kinds) == 1:
        return kinds[0]
    what, found = "more than one image" if kinds else "no image", ", ".join(sample.members)
    raise ValueError(f"sample '{sample.key}' has {what} ({found}); one of {', '.join(IMAGE_KINDS)} is meant")


def _label(sample: TarSample) -> int:
    text = sample.label or ""
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_CLASS):
        raise ValueError(f"sample '{sample.key}' has the label '{text}'; a class index from 0 as decimal text is meant")
    return int(text)


def image_names(folder: Path) -> Iterator[str]:
    """Images below a folder, as paths relative to it; hidden files and folders are left out, and links are followed."""
    above = {folder: {os.path.realpath(folder)}}  # a link to a folder that it lies in would have no end
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root)
        within = above.pop(here)
        real = {name: os.path.realpath(here / name) for name in folders if not name.startswith(".")}
        folders[:] = [name for name, path in real.items() if path not in within]
        above |= {here / name: within | {real[name]} for name in folders}
        inside = here.relative_to(folder)
        yield from ((inside / file).as_posix() for file in files if is_image_name(file))


def is_image_name(name: str) -> bool:
    """Whether a file's name is that of a visible image or array."""
    return not name.startswith(".") and Path(name).suffix[1:].lower() in IMAGE_KINDS


def class_folders(names: Sequence[str], listed: Set[str] = frozenset()) -> list[str]:
    """The class folders if every image lies in a listed one, or in one of at least two, class/image; otherwise none."""
    parts = [name.split("/") for name in names]
    folders = sorted({part[0] for part in parts})
    if set(folders) <= listed and all(len(part) > 1 for part in parts):
        return folders
    return folders if len(folders) > 1 and all(len(part) == 2 for part in parts) else []
