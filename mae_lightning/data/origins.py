"""Where packed samples come from: anything of the data grammar, or a data set of torchvision's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mae_lightning.data.contents import Contents, StoredImage
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.names import sample_keys
from mae_lightning.data.reading import can_seek, read_or_reason
from mae_lightning.data.sources import Source, open_source, splits_of, with_classes_of
from mae_lightning.data.strings import Strings
from mae_lightning.data.vision import TORCHVISION, torchvision_splits

__all__ = ["contents_of", "find_contents"]


def find_contents(name: str) -> dict[str, Contents]:
    """Every split that a name stands for.

    Args:
        name: Anything of the data grammar (see `open_source`), or `torchvision:CLASS:FOLDER`.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: The name stands for nothing, or for data that is damaged.
    """
    if name.startswith(TORCHVISION):
        return torchvision_splits(name)
    splits = splits_of(name)
    if not splits:
        source = open_source(name, "train")
        return {source.split or "train": contents_of(source)}
    sources = {split: open_source(f"{name}:{split}", split) for split in splits}
    first = sources.get("train") or next(iter(sources.values()))
    return {split: contents_of(with_classes_of(source, first)) for split, source in sources.items()}


def contents_of(source: Source) -> Contents:
    """A source's samples, to be packed."""
    manifest = source.manifest if source.manifest.packed else _with_sizes(source.manifest)

    def read(rows: NDArray[np.int64]) -> Iterator[StoredImage]:
        for row, data in read_or_reason(manifest, rows):
            yield data, manifest.kind_of(row)

    return Contents(
        keys=Strings.pack(sample_keys(manifest)),
        labels=manifest.label,
        rows=np.arange(len(manifest)),
        read=read,
        describe=manifest.describe,
        digest=manifest.digest,
        class_names=source.class_names,
        mean_bytes=float(manifest.size.mean()),
        is_ordered=not can_seek(manifest),
    )


def _with_sizes(manifest: Manifest) -> Manifest:
    paths = [Path(manifest.path(container)) for container in manifest.container.tolist()]
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]  # a link to nowhere is a bad image
    return replace(manifest, size=np.array(sizes, np.int64))
