"""Whether shards still are what a manifest says: every byte by checksum, and on request every image by decoding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from mae_lightning.data.decode import decode_stored
from mae_lightning.data.indexing import UNLABELLED, index_shards
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.manifest_file import Description, read_table
from mae_lightning.data.parallel import in_threads
from mae_lightning.data.reading import read_or_reason
from mae_lightning.data.tars import DAMAGE
from mae_lightning.data.urls import open_url, public_name

__all__ = ["sha256_of", "verify_split"]

BLOCK_BYTES = 512


def sha256_of(url: str) -> str:
    """The checksum of a shard as it is stored, as hexadecimal text."""
    with open_url(url) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify_split(
    description: Description,
    split: str,
    decoding: bool = False,
    workers: int = 1,
    done: Callable[[int], object] = lambda samples: None,
) -> Iterator[str]:
    """What is wrong with a split, a line each; nothing if all is well.

    Args:
        description: The manifest.
        split: Which split of it.
        decoding: Also decode every image of the shards whose bytes are as they were.
        workers: Shards read side by side.
        done: Called with the samples of each shard that is through.

    Raises:
        FileNotFoundError: The manifest's table is not there.
        ValueError: The manifest's table is not the one that was written.
    """
    manifest = read_table(description, split, compare_shards=False)
    yield from _wrong_labels(manifest, description.class_names)
    records = description.splits[split]["shards"]
    check = partial(_problems_of, manifest, records, decoding)
    for container, problems in enumerate(in_threads(check, range(len(records)), workers)):
        yield from problems
        done(int(np.count_nonzero(manifest.container == container)))


def _wrong_labels(manifest: Manifest, class_names: tuple[str, ...] | None) -> Iterator[str]:
    """Labels that the manifest itself has and should not."""
    if not np.any(manifest.label != UNLABELLED):
        return
    count = len(class_names) if class_names else None
    wrong = manifest.label < 0 if count is None else (manifest.label < 0) | (manifest.label >= count)
    for row in np.flatnonzero(wrong).tolist():
        label = int(manifest.label[row])
        meant = "others have one" if label == UNLABELLED or count is None else f"the classes are 0 to {count - 1}"
        had = "no label" if label == UNLABELLED else f"label {label}"
        yield f"{manifest.describe(row)} has {had}, and {meant}"


def _problems_of(manifest: Manifest, records: list[Mapping[str, Any]], decoding: bool, container: int) -> list[str]:
    url, record = manifest.path(container), records[container]
    expected = manifest.select(np.flatnonzero(manifest.container == container))
    if len(expected) != record["samples"]:
        return [f"{public_name(url)}: {len(expected)} samples in the table, and the manifest says {record['samples']}"]
    try:
        is_same = sha256_of(url) == record["sha256"]
    except FileNotFoundError:
        return [f"no shard at {public_name(url)}"]
    except (ValueError, OSError) as error:
        return [f"{public_name(url)}: {error}"]
    if is_same:
        return _undecodable(expected) if decoding else []
    try:
        return [f"{public_name(url)}: {_change(expected, container)}"]
    except (ValueError, OSError) as error:
        return [str(error)]


def _undecodable(manifest: Manifest) -> list[str]:
    """Images that cannot be decoded, each with its reason."""
    problems = []
    for row, data in read_or_reason(manifest, np.arange(len(manifest))):
        try:
            if isinstance(data, Exception):
                raise data
            decode_stored(data, manifest.kind_of(row))
        except DAMAGE as error:
            problems.append(f"{manifest.describe(row)}: {error}")
    return problems


def _change(expected: Manifest, container: int) -> str:
    """How a shard differs whose checksum does; names the first sample that is another.

    Raises:
        ValueError: The shard is damaged; says how.
    """
    found = index_shards(expected.base, [expected.containers[container]])
    if len(found) != len(expected):
        return f"{len(found)} samples, and the manifest says {len(expected)}"
    for row, (key, label, size) in enumerate(zip(expected.keys, expected.label, expected.size, strict=True)):
        if found.keys[row] != key:
            return f"the checksum differs; sample '{found.keys[row]}' stands where '{key}' should"
        if found.label[row] != label:
            return f"the checksum differs; sample '{key}' has label {found.label[row]}, and the manifest says {label}"
        if found.size[row] != size:
            return f"the checksum differs; sample '{key}' has {found.size[row]} bytes, and the manifest says {size}"
    stored, said = int(found.container_bytes[0]), int(expected.container_bytes[container])
    if stored and stored != said:
        whole = "" if stored % BLOCK_BYTES == 0 else ", and a tar's blocks are whole"
        return f"the checksum differs; {stored} bytes, and the manifest says {said}{whole}"
    return "the checksum differs; its samples are the manifest's, their bytes are not"
