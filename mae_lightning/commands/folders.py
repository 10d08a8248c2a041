"""Folders that commands write into."""

from pathlib import Path


def check_folder(path: Path) -> None:
    """Refuses what cannot be a folder, before any work is done.

    Raises:
        ValueError: It is a file, or lies below one.
    """
    for place in (path, *path.parents):
        if place.is_file():
            raise ValueError(f"--out {path}: {place} is a file; name a folder")
