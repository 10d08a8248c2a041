"""Whether shards still are what a manifest says: every byte, by checksum and by the samples that are in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from mae_lightning.data.indexing import index_shards
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.manifest_file import Description, read_table
from mae_lightning.data.urls import open_url, public_name

__all__ = ["sha256_of", "verify_split"]


def sha256_of(url: str) -> str:
    """The checksum of a shard as it is stored, as hexadecimal text."""
    with open_url(url) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify_split(description: Description, split: str) -> Iterator[str]:
    """What is wrong with the shards of a split, a line each; nothing if all is well.

    Raises:
        FileNotFoundError: The manifest's table is not there.
        ValueError: The manifest's table is not the one that was written.
    """
    manifest = read_table(description, split, compare_shards=False)
    for container, record in enumerate(description.splits[split]["shards"]):
        problem = _problem_of(manifest, container, record["sha256"])
        if problem is not None:
            yield problem


def _problem_of(manifest: Manifest, container: int, sha256: str) -> str | None:
    url = manifest.path(container)
    try:
        if sha256_of(url) == sha256:
            return None
        found = index_shards(manifest.base, [manifest.containers[container]])
    except FileNotFoundError:
        return f"no shard at {public_name(url)}"
    except (ValueError, OSError) as error:
        return str(error)
    expected = manifest.select(np.flatnonzero(manifest.container == container))
    if len(found) != len(expected):
        return f"{public_name(url)}: {len(found)} samples, and the manifest says {len(expected)}"
    changed = "its samples are the manifest's, their bytes are not"
    if list(found.keys) != list(expected.keys) or not np.array_equal(found.label, expected.label):
        changed = "other samples or labels than the manifest's"
    return f"{public_name(url)}: the checksum differs; {changed}"
