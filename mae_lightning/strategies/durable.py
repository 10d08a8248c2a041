"""Checkpoints that survive crashes, full disks and flipped bits."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

KEPT_DIGESTS = 3
"""The file, the one before it, and the one that a crash between two renames may have left."""


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
        temporary = path.with_name(f".{path.name}.writing")
        try:
            digest = _write(temporary, lambda file: torch.save(checkpoint, file))
            _record(path, digest)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise OSError(f"checkpoint {path} could not be written: {error}; the one before it is whole") from error
        if path.exists():
            _replace_by_link(path, previous_of(path))
        temporary.replace(path)
        _flush_folder(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads the file, or the one before it when the file is damaged; tensors and plain values only.

        Raises:
            FileNotFoundError: Neither file is there.
            ValueError: Every file that is there is damaged.
        """
        file = newest_whole(Path(path))
        if file is None:
            raise FileNotFoundError(f"checkpoint {path} does not exist; give the path of a .ckpt file")
        return dict(torch.load(file, map_location=map_location or "cpu", weights_only=True))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes the file, the one before it and their digests."""
        for file in (Path(path), previous_of(Path(path)), _digests_of(Path(path))):
            file.unlink(missing_ok=True)


def newest_whole(path: Path) -> Path | None:
    """The checkpoint, or the one before it where it is damaged or missing, which a warning then says.

    Returns:
        None where neither is there.

    Raises:
        ValueError: Every file that is there is damaged.
    """
    candidates = [file for file in (path, previous_of(path)) if file.is_file()]
    for file in candidates:
        if is_whole(file, path):
            if file != path:
                rank_zero_warn(f"checkpoint {path} is damaged or missing; going on from the one before it, {file}")
            return file
    if candidates:
        names = " and ".join(map(str, candidates))
        raise ValueError(f"checkpoint damaged: {names}: sha256 differs from {_digests_of(path)}; restore a copy of it")
    return None


def previous_of(path: Path) -> Path:
    """Where the checkpoint before this one is kept."""
    return path.with_name(f"{path.name}.previous")


def is_whole(file: Path, path: Path | None = None) -> bool:
    """Whether the file's sha256 is among those recorded for ``path``; a file without a record counts as whole."""
    digests = _digests_of(path or file)
    if not digests.is_file():
        return True
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() in digests.read_text().split()


def _digests_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _record(path: Path, digest: str) -> None:
    """Puts the digest of the file to come before those of the files that are there."""
    known = _digests_of(path).read_text().split() if _digests_of(path).is_file() else []
    text = "\n".join([digest, *known][:KEPT_DIGESTS]) + "\n"
    temporary = path.with_name(f".{path.name}.sha256.writing")
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
    temporary = target.with_name(f".{target.name}.linking")
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
