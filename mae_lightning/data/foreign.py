"""A manifest for shards that were made elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mae_lightning.data.decode import decode_stored
from mae_lightning.data.indexing import hash_shards
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.manifest_file import write_manifest
from mae_lightning.data.moments import Sums, add_image, mean_and_deviation
from mae_lightning.data.reading import made_of
from mae_lightning.data.sources import check_labels, class_names_beside, expand_shards
from mae_lightning.data.statistics import MEASURED_IMAGES, some_rows
from mae_lightning.data.urls import is_remote

__all__ = ["index_splits"]


def index_splits(
    splits: Mapping[str, Sequence[str]],
    folder: Path,
    classes: Path | None = None,
    workers: int = 1,
    done: Callable[[int], object] = lambda samples: None,
    warn: Callable[[str], object] = lambda reason: None,
) -> tuple[dict[str, Manifest], Path]:
    """Read shards and write their manifest.

    Args:
        splits: Each split's patterns of shards.
        folder: Where the manifest goes.
        classes: File of the class names, one a line; None looks for a `classes.txt` beside local shards.
        workers: Shards read side by side.
        done: Called with the samples of each shard that is through.
        warn: Called with every sample that mean and deviation leave out, as it cannot be decoded.

    Returns:
        Each split's samples, and the manifest's path.

    Raises:
        FileNotFoundError: A shard is not there.
        ValueError: A shard is damaged, its samples make no sense, a label is beyond the classes, or none of the images
            that are measured can be decoded.
    """
    manifests, sha256 = {}, {}
    for split, patterns in splits.items():
        base, names = _located([path for pattern in patterns for path in expand_shards(pattern)])
        manifests[split], sha256[split] = hash_shards(base, names, workers, done)
    first = next(iter(manifests.values()))
    if classes is not None and not classes.is_file():
        raise FileNotFoundError(f"no file of class names at {classes}")
    if classes is not None:
        class_names = class_names_beside(classes.parent, classes.name)
    else:
        class_names = class_names_beside(Path(first.base)) if first.base else None
    for manifest in manifests.values():
        check_labels(manifest, len(class_names) if class_names else None)
    mean, std = _measured(first, warn)
    path = write_manifest(
        folder, manifests, sha256, class_names=class_names, num_channels=len(mean), mean=mean, std=std
    )
    return manifests, path


def _located(paths: Sequence[str]) -> tuple[str, list[str]]:
    """What shards' names are relative to, and the names, each once."""
    remote = [is_remote(path) for path in paths]
    if all(remote):
        return "", list(dict.fromkeys(paths))
    if any(remote):
        raise ValueError("shards of one split lie either all on this machine or all elsewhere; index them apart")
    local = [path.removeprefix("file://") for path in paths]
    base = os.path.commonpath([Path(path).absolute().parent for path in local])
    return base, list(dict.fromkeys(os.path.relpath(path, base) for path in local))


def _measured(manifest: Manifest, warn: Callable[[str], object]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of some of the images; training decides what to do with those that cannot be decoded."""
    sums: Sums = {}

    def add(row: int, data: bytes) -> None:
        add_image(sums, decode_stored(data, manifest.kind_of(row)))

    made_of(manifest, some_rows(manifest, MEASURED_IMAGES), add, skip_bad=True, warn=warn)
    return mean_and_deviation([sums])
