"""The way back from shards: every image as a file of its own, with the bytes that it has in the shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mae_lightning.data.names import class_folder, file_name, sample_keys
from mae_lightning.data.parallel import in_threads
from mae_lightning.data.reading import read_rows
from mae_lightning.data.sources import Source

__all__ = ["unpack"]


def unpack(
    source: Source, folder: Path, workers: int = 1, done: Callable[[int], object] = lambda samples: None
) -> None:
    """Write `folder/class/name.kind`, or `folder/name.kind` without labels, and `classes.txt` for the labels' order.

    Args:
        source: What to unpack.
        folder: Where to; new or empty.
        workers: Shards read side by side.
        done: Called with a number of samples that are written.

    Raises:
        ValueError: The folder is not empty, a sample cannot be read, its name leads out of the folder, or two samples
            or two classes would get the same name.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    names = _different_names(source)
    paths = _paths(source, names)
    if names:
        text = "".join(f"{name}\n" for name in names)
        (folder / "classes.txt").write_text(text, encoding="utf-8")
    write = partial(_write_container, source, folder, paths, done)
    for _ in in_threads(write, range(len(source.manifest.containers)), workers):
        pass


def _different_names(source: Source) -> list[str]:
    """A name for each label, so that they can be had back: its number where it has none, or others have the same."""
    if not source.manifest.is_labelled:
        return []
    names = source.class_names or [str(label) for label in range(int(source.manifest.label.max()) + 1)]
    count = Counter(names)
    different = [name if count[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)]
    name, times = Counter(different).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{times} classes of {source.name} would be written to {name}: give them other names")
    return different


def _paths(source: Source, names: list[str]) -> list[str]:
    """Each sample's path below the folder, all different."""
    manifest = source.manifest
    paths = []
    for row, key in enumerate(sample_keys(manifest)):
        path = file_name(key, manifest.kind_of(row))
        if manifest.is_labelled:
            label = int(manifest.label[row])
            home = class_folder(names[label])
            folder = next((folder for folder in (home, names[label]) if path.startswith(f"{folder}/")), None)
            path = f"{home}/{path if folder is None else path[len(folder) + 1 :]}"
        paths.append(path)
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"two samples of {source.name} would be written to {twice}")
    return paths


def _write_container(
    source: Source, folder: Path, paths: list[str], done: Callable[[int], object], container: int
) -> None:
    manifest = source.manifest
    for row, data in read_rows(manifest, np.flatnonzero(manifest.container == container)):
        path = folder / paths[row]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        done(1)
