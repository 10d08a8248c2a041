"""A manifest on disk: `manifest.json` for people and a table of the samples beside it for speed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mae_lightning.atomic import write_atomically
from mae_lightning.data.manifest import IMAGE_KINDS, Manifest
from mae_lightning.data.strings import Strings
from mae_lightning.data.urls import is_remote, open_url, public_name

__all__ = ["MANIFEST_NAME", "WORK_FOLDER", "Description", "read_description", "read_table", "write_manifest"]

MANIFEST_NAME = "manifest.json"
WORK_FOLDER = ".packing"
"""Lies beside shards until all of them and their manifest are written."""
FORMAT = 1
COLUMNS = {"container": np.int64, "kind": np.uint8, "offset": np.int64, "size": np.int64, "label": np.int64}


@dataclass(frozen=True)
class Description:
    """What a manifest says of a whole data set.

    Attributes:
        location: Path or URL of the manifest.
        splits: Each split's record: samples, table, digest, shards.
        class_names: Of the labels, where there are names.
        num_channels: Of the images, where it is known.
        mean: A channel's mean over the training split, of pixels in 0..1, where it is known.
        std: Likewise the standard deviation.
    """

    location: str
    splits: Mapping[str, Mapping[str, Any]]
    class_names: tuple[str, ...] | None = None
    num_channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def folder(self) -> str:
        return self.location.rpartition("/")[0] or "."


def write_manifest(
    folder: Path,
    splits: Mapping[str, Manifest],
    sha256: Mapping[str, Sequence[str]],
    *,
    class_names: Sequence[str] | None = None,
    num_channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write `manifest.json` and its tables into `folder`; the old manifest stays whole until the new one is.

    Args:
        folder: Where to; shards named relative to a local base are named relative to this folder, and remote ones
            without user and query: a manifest holds no secret.
        splits: Each split's samples.
        sha256: Each split's shards' checksums, in the order of its containers.
        class_names: Of the labels.
        num_channels: Of the images.
        mean: A channel's mean over the training split, of pixels in 0..1.
        std: Likewise the standard deviation.
        extra: Further facts for people, such as the range of the image sizes.
    """
    records = {}
    for name, manifest in splits.items():
        table = f"samples-{name}-{manifest.digest[:12]}.npz"
        write_atomically(folder / table, _table_bytes(manifest))
        counts = np.bincount(manifest.container, minlength=len(manifest.containers)).tolist()
        shards = zip(
            _names_from(folder, manifest), counts, manifest.container_bytes.tolist(), sha256[name], strict=True
        )
        records[name] = {
            "samples": len(manifest),
            "table": table,
            "digest": manifest.digest,
            "shards": [{"name": shard, "samples": n, "bytes": size, "sha256": sum_} for shard, n, size, sum_ in shards],
        }
    facts = {"class_names": class_names, "num_channels": num_channels, "mean": mean, "std": std, **(extra or {})}
    text = json.dumps({"format": FORMAT, **facts, "splits": records}, indent=1)
    write_atomically(folder / MANIFEST_NAME, text)
    return folder / MANIFEST_NAME


def _names_from(folder: Path, manifest: Manifest) -> list[str]:
    if not manifest.base or is_remote(manifest.base):
        return [public_name(manifest.path(container)) for container in range(len(manifest.containers))]
    base = os.path.relpath(os.path.realpath(manifest.base), os.path.realpath(folder))
    return [name if base == "." else f"{base}/{name}" for name in manifest.containers]


def _table_bytes(manifest: Manifest) -> bytes:
    columns = {name: getattr(manifest, name) for name in COLUMNS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, key_text=manifest.keys.text, key_ends=manifest.keys.ends, **columns)
    return buffer.getvalue()


def read_description(location: str) -> Description:
    """The manifest at a path or URL, without its tables.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not one of ours, or of a later format.
    """
    name = public_name(location)
    try:
        with open_url(location) as file:
            content = json.load(file)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, and this version reads {FORMAT}")
        names, mean, std = (
            None if (fact := content[key]) is None else tuple(fact) for key in ("class_names", "mean", "std")
        )
        splits = {split: dict(record) for split, record in dict(content["splits"]).items()}
        return Description(location, splits, names, content["num_channels"], mean, std)
    except FileNotFoundError:
        raise FileNotFoundError(f"no manifest at {name}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is no manifest of this program: {error!r}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: {error}") from None


def read_table(description: Description, split: str, compare_shards: bool = True) -> Manifest:
    """The samples of one split, once its local shards are seen to be there with the sizes that they had.

    Raises:
        FileNotFoundError: The table or a local shard is not there.
        ValueError: The table or a local shard is not the manifest's.
    """
    record, folder = description.splits[split], description.folder
    try:
        names = [shard["name"] for shard in record["shards"]]
        sizes = np.array([shard["bytes"] for shard in record["shards"]], np.int64)
        location = f"{folder}/{record['table']}"
    except (KeyError, TypeError, ValueError) as error:
        name = public_name(description.location)
        raise ValueError(f"{name} is no manifest of this program: {error!r} of {split}") from None
    base = "" if names and is_remote(names[0]) else folder
    try:
        with open_url(location) as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as table:
            keys = Strings(table["key_text"], table["key_ends"])
            columns = {name: table[name].astype(kind, casting="same_kind") for name, kind in COLUMNS.items()}
        manifest = Manifest(base, True, Strings.pack(names), sizes, keys=keys, place=np.arange(len(keys)), **columns)
        if not _is_sound(manifest) or manifest.digest != record["digest"]:
            raise ValueError("it is not the manifest's table")
    except FileNotFoundError:
        raise FileNotFoundError(f"no table of samples at {public_name(location)}") from None
    except (ValueError, KeyError, BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{public_name(location)} cannot be used: {error}") from None
    if compare_shards:
        _compare_sizes(manifest)
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    """Whether every number of a table from elsewhere is within its bounds."""
    rows = len(manifest.keys)
    columns = (manifest.container, manifest.kind, manifest.offset, manifest.size, manifest.label)
    return (
        rows > 0
        and all(column.shape == (rows,) for column in columns)
        and 0 <= int(manifest.container.min()) <= int(manifest.container.max()) < len(manifest.containers)
        and bool(np.all(np.diff(manifest.container) >= 0))
        and int(manifest.kind.max()) < len(IMAGE_KINDS)
        and int(manifest.offset.min()) >= 0
        and int(manifest.size.min()) >= 0
    )


def _compare_sizes(manifest: Manifest) -> None:
    """One look at each local shard; `verify_split` reads them whole."""
    for container, expected in enumerate(manifest.container_bytes.tolist()):
        path = manifest.path(container)
        if is_remote(path):
            continue
        if not Path(path).is_file():
            raise FileNotFoundError(f"no shard at {path}")
        if (size := Path(path).stat().st_size) != expected:
            raise ValueError(f"{path}: {size} bytes, and the manifest says {expected}: not the shard that was indexed")
