"""Names of samples in shards and of files in folders, so that one can be had back from the other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

from mae_lightning.data.manifest import Manifest
from mae_lightning.data.tars import split_name
from mae_lightning.data.urls import public_name

__all__ = ["class_folder", "file_name", "sample_keys"]

SHARD_SUFFIX = r"[.](tar|tar[.]gz|tgz)$"
QUOTED = {"%25": "%", "%2E": ".", "%5F": "_"}


def sample_keys(manifest: Manifest) -> list[str]:
    """A key for each sample, fit for a shard and unlike all others.

    A shard knows a sample by its name up to the first dot, so that dots in names are written `%2E`. Names that come
    twice get the extension with them (`cat.jpg` beside `cat.png`), or the shard's name before them.

    Raises:
        ValueError: Two samples still have the same name.
    """
    keys = list(manifest.keys) if manifest.packed else [_quoted(key) for key in manifest.keys]
    twice = {key for key, count in Counter(keys).items() if count > 1}
    if not twice:
        return keys
    for row, key in enumerate(keys):
        if key in twice and manifest.packed:
            shard = manifest.containers[int(manifest.container[row])]
            keys[row] = f"{re.sub(SHARD_SUFFIX, '', PurePosixPath(public_name(shard)).name)}/{key}"
        elif key in twice:
            keys[row] = _quoted(f"{manifest.keys[row]}.{manifest.kind_of(row)}")
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} samples have the name '{key}': a shard knows a sample by its name; rename them")
    return keys


def _quoted(key: str) -> str:
    folder, slash, name = key.replace("%", "%25").rpartition("/")
    key = folder + slash + name.replace(".", "%2E")
    return key if split_name(f"{key}.jpg") else f"%5F{key[1:]}"  # shards keep names such as __meta__ for themselves


def file_name(key: str, kind: str) -> str:
    """The path of a sample's file below its folder.

    Raises:
        ValueError: It would lie outside of the folder.
    """
    name = re.sub("%25|%2E|%5F", lambda match: QUOTED[match[0]], key)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"sample '{key}' would be written outside of the folder")
    return name if name.endswith(f".{kind}") else f"{name}.{kind}"


def class_folder(name: str) -> str:
    """The name of the folder of a class, whose own name may have a slash in it."""
    return name.replace("%", "%25").replace("/", "%2F") if name.strip(".") else f"%2E{name[1:]}"
