"""Checkpoints that survive crashes, full disks and flipped bits."""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from mae_lightning.atomic import WRITING
from mae_lightning.weights import is_sharded, read_checkpoint
from mae_lightning.weights.files import remove

TEMPORARY = (WRITING, ".linking")
"""How names end that begin with a dot and are not final."""
DIGESTS = "SHA256SUMS"
"""In the folder of a checkpoint in shards; written last, so that a folder without it is not whole."""


class DurableCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its target and renames it when it is on the disk; keeps the one before.

    A file's sha256 is computed while it is written and stands in ``NAME.sha256`` before the file takes its name. When a
    damaged file is asked for, ``NAME.previous`` is read instead, and both are named. At any moment at least one whole
    checkpoint lies in the folder. The state is never copied in memory.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes, flushes to the disk, then renames.

        Raises:
            OSError: It could not be written, for want of space for example; what was there before is untouched.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_of(path)
        try:
            digest = _write(temporary, lambda file: torch.save(checkpoint, file))
            known = _known_digests(path)
            _record(path, digest, *known)
        except (OSError, RuntimeError) as error:
            remove(temporary)
            raise OSError(f"checkpoint {path} could not be written: {error}; the one before it is whole") from error
        take_name(temporary, path)
        with suppress(OSError):  # the next one to be saved does it
            _record(path, digest, *known[:1])

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads the checkpoint, or the one before it when it is damaged; tensors and plain values only.

        Raises:
            FileNotFoundError: Neither is there.
            ValueError: All that is there is damaged.
        """
        found = newest_whole(Path(path))
        if found is None:
            raise FileNotFoundError(f"checkpoint {path} does not exist; give the path of a .ckpt file")
        return read_checkpoint(found)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes the checkpoint, the one before it and their digests."""
        for place in (Path(path), previous_of(Path(path)), _digests_of(Path(path))):
            remove(place)


def newest_whole(path: Path) -> Path | None:
    """The checkpoint, a file or in shards, or the one before it where it is damaged or missing, which a warning says.

    Returns:
        None where neither is there.

    Raises:
        ValueError: All that is there is damaged.
    """
    candidates = [place for place in (path, previous_of(path)) if place.is_file() or is_sharded(place)]
    for place in candidates:
        if is_whole(place, path):
            if place != path:
                rank_zero_warn(f"checkpoint {path} is damaged or missing; going on from the one before it, {place}")
            return place
    if candidates:
        names = " and ".join(map(str, candidates))
        raise ValueError(f"checkpoint damaged: {names}: sha256 differs from {_digests_of(path)}; restore a copy of it")
    return None


def previous_of(path: Path) -> Path:
    """Where the checkpoint before this one is kept."""
    return path.with_name(f"{path.name}.previous")


def temporary_of(path: Path) -> Path:
    """Where a checkpoint is written before it takes its name."""
    return path.with_name(f".{path.name}{WRITING}")


def is_whole(place: Path, path: Path | None = None) -> bool:
    """Whether a checkpoint is as it was written.

    Args:
        place: A file, whole if its sha256 is among those recorded, or if none are; or a folder of shards, whole if each
            file has the sha256 that the folder's record says.
        path: Where the file's record is looked up; by default at the file itself.
    """
    if place.is_dir():
        return _is_whole_folder(place)
    digests = _digests_of(path or place)
    return not digests.is_file() or digest_of(place) in digests.read_text().split()


def _is_whole_folder(folder: Path) -> bool:
    if not (folder / DIGESTS).is_file():
        return False
    rows = [line.split(maxsplit=1) for line in (folder / DIGESTS).read_text().splitlines()]
    return all((folder / name).is_file() and digest_of(folder / name) == digest for digest, name in rows)


def digest_of(file: Path) -> str:
    """The sha256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal_folder(folder: Path, digests: Mapping[str, str]) -> None:
    """Declares a folder of shards whole: nothing is written into it after this.

    Args:
        folder: Holds all files, flushed to the disk.
        digests: The sha256 of each, by name.
    """
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    _write(folder / DIGESTS, lambda file: file.write(text.encode()))
    _flush_folder(folder)


def take_name(temporary: Path, path: Path) -> None:
    """Gives a finished file or folder its name, and keeps what had it as the one before."""
    before = previous_of(path)
    if temporary.is_file() and path.is_file() and not before.is_dir():
        _replace_by_link(path, before)
    elif path.exists():
        remove(before)
        path.replace(before)
    temporary.replace(path)
    _flush_folder(path.parent)


def remove_leftovers(*folders: Path) -> None:
    """Removes what a process left that was killed while it wrote: temporaries of our own names, and nothing else."""
    for folder in folders:
        for place in folder.glob(".?*") if folder.is_dir() else ():
            if place.suffix in TEMPORARY:
                remove(place)


def _digests_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _known_digests(path: Path) -> list[str]:
    """Those of the file and the one before it; where a crash left others too, both are read to know which."""
    known = _digests_of(path).read_text().split() if _digests_of(path).is_file() else []
    there = [place for place in (path, previous_of(path)) if place.is_file()]
    return known if len(known) == len(there) else [digest for digest in map(digest_of, there) if digest in known]


def _record(path: Path, *digests: str) -> None:
    """Writes down the digests of whole files, the newest first."""
    text = "".join(f"{digest}\n" for digest in digests)
    temporary = temporary_of(_digests_of(path))
    _write(temporary, lambda file: file.write(text.encode()))
    temporary.replace(_digests_of(path))


class _HashingFile:
    """A file that hashes what passes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _write(path: Path, write: Callable[[Any], object]) -> str:
    """Writes and flushes to the disk; the sha256 of what was written."""
    with path.open("wb") as file:
        hashing = _HashingFile(file)
        write(hashing)
        file.flush()
        os.fsync(file.fileno())
    return hashing.hash.hexdigest()


def _replace_by_link(source: Path, target: Path) -> None:
    """Gives the source's content a second name; the source never lacks its own."""
    temporary = target.with_name(f".{target.name}{TEMPORARY[1]}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        source.replace(temporary)
    temporary.replace(target)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
