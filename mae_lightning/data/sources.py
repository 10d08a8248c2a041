"""The one grammar for data: a catalogue name, a manifest, shards, a folder of images, or one image."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from braceexpand import braceexpand

from mae_lightning.data.catalogue import CATALOGUE, KnownData, known
from mae_lightning.data.indexing import (
    UNLABELLED,
    class_folders,
    image_names,
    index_files,
    index_shards,
    is_image_name,
)
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.manifest_file import MANIFEST_NAME, WORK_FOLDER, read_description, read_table
from mae_lightning.data.names import class_folder
from mae_lightning.data.urls import is_remote, public_name

__all__ = [
    "Source",
    "WrongLabelsError",
    "check_labels",
    "class_names_beside",
    "expand_shards",
    "held_out_name",
    "open_source",
    "splits_of",
    "with_classes_of",
]

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
SPLITS = ("train", "val", "test")


class WrongLabelsError(ValueError):
    """The labels and the names of the classes do not go together."""


@dataclass(frozen=True)
class Source:
    """One split of a data set, found and indexed.

    Attributes:
        name: As the user wrote it.
        split: Which split it is, where the data set has several.
        manifest: Its samples.
        class_names: Of the labels, where the source has names.
        num_channels: Of the images, where the source says so.
        mean: A channel's mean over the training split, where the source says so.
        std: Likewise the standard deviation.
    """

    name: str
    split: str | None
    manifest: Manifest
    class_names: tuple[str, ...] | None = None
    num_channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def num_classes(self) -> int | None:
        if self.class_names is not None:
            return len(self.class_names)
        return int(self.manifest.label.max()) + 1 if self.manifest.is_labelled else None


def open_source(name: str, role: str) -> Source:
    """Find and index the data that `name` stands for.

    Args:
        name: A name of the catalogue (`fashion_mnist`, `fashion_mnist:val`), a `manifest.json` or its folder, shards
            (a path, a glob or brace pattern), a folder of images, or one image. A data set with several splits gives
            the one of `role` unless `:split` names another.
        role: "train" or "val"; what the data is for.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: The name stands for nothing, or for data that is damaged; one line says which.
    """
    if not name.strip():
        raise ValueError("the name of the data is empty; name a folder, shards, a manifest or an image")
    bare, _, split = name.rpartition(":")
    if bare and split in SPLITS and not Path(name).exists():
        return _checked(_open(bare, role, split))
    return _checked(_open(name, role, None))


def held_out_name(train: str) -> str | None:
    """The name under which training data's own validation split is found, where it has one."""
    splits = splits_of(train)
    return train if "val" in splits and splits != ("val",) else None  # a sole split serves any role: training's, too


def splits_of(name: str) -> tuple[str, ...]:
    """The splits of a data set that has several; none where the name stands for a single one."""
    if name in CATALOGUE:
        return tuple(CATALOGUE[name].splits)
    location = name if name.endswith(".json") else f"{name}/{MANIFEST_NAME}"
    if name.endswith(".json") or Path(location).is_file():
        return tuple(read_description(location).splits)
    return tuple(_split_folders(Path(name)))


def _split_folders(folder: Path) -> list[str]:
    """Those of a folder's folders that are splits.

    Raises:
        ValueError: Another one has images too, so that they may all be classes.
    """
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    for other in sorted(folder.iterdir()) if splits else ():
        is_other = other.name not in SPLITS and not other.name.startswith(".") and other.is_dir()
        if is_other and next(image_names(other), None):
            raise ValueError(
                f"{folder} has '{splits[0]}', a split's name, beside '{other.name}' with images too: rename"
                f" '{splits[0]}' if it is a class; if it is a split, name {folder / splits[0]}, or move the other away"
            )
    return splits


def _open(name: str, role: str, split: str | None) -> Source:
    if name.endswith(".json"):
        return _from_manifest(name, role, split)
    if is_remote(name):
        raise ValueError(
            f"{public_name(name)} is remote: make a manifest once with"
            f" `python -m mae_lightning index '{public_name(name)}' --out DIR` and name that"
        )
    if name in CATALOGUE:
        return _from_catalogue(name, known(name), split or role)
    path = Path(name)
    if (path / MANIFEST_NAME).is_file():
        return replace(_from_manifest(f"{name}/{MANIFEST_NAME}", role, split), name=name)
    if path.is_dir():
        return _from_folder(name, path, role, split)
    is_image = path.is_file() and is_image_name(path.name)
    is_shards = not is_image and any(suffix in name for suffix in SHARD_SUFFIXES)
    if split is not None and (is_image or is_shards):
        raise ValueError(f"{name} is one split alone: leave out ':{split}'")
    if is_shards:
        return _from_shards(name)
    if path.is_file():
        if not is_image:
            raise ValueError(f"{name} is no image, shard or manifest")
        return Source(name, None, index_files(str(path.parent), [path.name], [UNLABELLED]))
    if os.sep in name or path.suffix:
        raise FileNotFoundError(f"no data at '{name}': there is no such file or folder")
    known(name)
    raise AssertionError("unreachable")


def _from_catalogue(name: str, entry: KnownData, split: str) -> Source:
    if split not in entry.splits:
        raise ValueError(f"{name} has no split '{split}'; it has {', '.join(entry.splits)}")
    shards = sorted(path.name for path in entry.folder.glob(entry.splits[split]))
    manifest = index_shards(str(entry.folder), shards)
    return Source(name, split, manifest, entry.class_names, entry.num_channels, entry.mean, entry.std)


def _from_manifest(location: str, role: str, split: str | None) -> Source:
    description = read_description(location)
    names = list(description.splits)
    chosen = split or (role if role in names or len(names) > 1 else names[0])
    if chosen not in names:
        raise ValueError(f"{public_name(location)} has no split '{chosen}'; it has {', '.join(names)}")
    facts = (description.class_names, description.num_channels, description.mean, description.std)
    return Source(location, chosen, read_table(description, chosen), *facts)


def _from_shards(pattern: str) -> Source:
    paths = expand_shards(pattern)
    base = os.path.commonpath([Path(path).parent for path in paths])
    names = list(dict.fromkeys(os.path.relpath(path, base or ".") for path in paths))  # once each if patterns overlap
    manifest = index_shards(base, names)
    return Source(pattern, None, manifest, class_names_beside(Path(base)))


def expand_shards(pattern: str) -> list[str]:
    """Paths or URLs of shards: braces are expanded, and locally wildcards too.

    Raises:
        FileNotFoundError: No file matches.
        ValueError: A brace has no other one.
    """
    try:
        expanded = [pattern] if Path(pattern).is_file() else list(braceexpand(pattern))
    except ValueError:
        raise ValueError(f"{public_name(pattern)}: braces that do not match; write such as {{000..127}}") from None
    paths = []
    for path in expanded:
        is_pattern = glob.has_magic(path) and not is_remote(path) and not Path(path).is_file()
        found = sorted(glob.glob(path)) if is_pattern else [path]  # noqa: PTH207 - absolute patterns too
        if not found:
            raise FileNotFoundError(f"no shard matches '{path}'")
        paths += found
    return paths


def class_names_beside(folder: Path, name: str = "classes.txt") -> tuple[str, ...] | None:
    """Names of the classes, one a line, where a folder of images or shards has a file of them.

    Raises:
        ValueError: It is not in UTF-8.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        return tuple(path.read_text(encoding="utf-8-sig").rstrip("\n").splitlines()) or None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}; save it in UTF-8") from None


def _from_folder(name: str, folder: Path, role: str, split: str | None) -> Source:
    if (folder / WORK_FOLDER).is_dir():
        raise ValueError(f"{folder} holds an unfinished `pack`: run the same command again, and it goes on")
    if split is None and (splits := _split_folders(folder)):
        if role not in splits:
            raise ValueError(f"{folder} has no split '{role}'; it has {', '.join(splits)}: name {name}:{splits[0]}")
        split = role
    if split is not None:
        folder = folder / split
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder '{split}' in {folder.parent}")
    shards = sorted(path.name for path in folder.iterdir() if path.name.endswith(SHARD_SUFFIXES) and path.is_file())
    if shards:
        return Source(name, split, index_shards(str(folder), shards), class_names_beside(folder))
    names = sorted(image_names(folder))
    if not names:
        raise ValueError(f"no images and no shards in {folder}; put .jpg, .png or .webp files or .tar shards there")
    class_names, labels = _classes_of(names, class_names_beside(folder) or ())
    return Source(name, split, index_files(str(folder), names, labels), class_names)


def _classes_of(names: list[str], listed: tuple[str, ...]) -> tuple[tuple[str, ...] | None, list[int]]:
    """Class names and labels of images, in the order of a `classes.txt` that has all folders, else of the alphabet."""
    for spelt in (class_folder, str):  # as `unpack` calls the folders, or as they are called elsewhere
        homes = {spelt(entry): label for label, entry in enumerate(listed)}
        classes = class_folders(names, homes.keys())
        if set(classes) <= homes.keys():
            break
    else:
        listed, homes = tuple(classes), {entry: label for label, entry in enumerate(classes)}
    if not classes:
        return None, [UNLABELLED] * len(names)
    return listed, [homes[image.split("/")[0]] for image in names]


def _checked(source: Source) -> Source:
    """The source, once its labels are known to be within its classes."""
    check_labels(source.manifest, source.num_classes)
    return source


def check_labels(manifest: Manifest, num_classes: int | None) -> None:
    """Refuses labels beyond the classes, where their number is known.

    Raises:
        WrongLabelsError: There is one; names its sample.
    """
    if num_classes is None:
        return
    outside = np.flatnonzero(manifest.label >= num_classes)
    if len(outside):
        row = int(outside[0])
        raise WrongLabelsError(
            f"{manifest.describe(row)} has label {manifest.label[row]}, and the classes are 0 to {num_classes - 1}"
        )


def with_classes_of(source: Source, training: Source) -> Source:
    """A held-out source with its labels in the order of the training source's class names.

    Raises:
        ValueError: It has a class that the training source lacks, or labels beyond its classes.
    """
    ours, theirs = source.class_names, training.class_names
    if ours is None or theirs is None or ours == theirs:
        check_labels(source.manifest, training.num_classes)
        return replace(source, class_names=theirs) if theirs else source
    unknown = sorted(set(ours) - set(theirs))
    if unknown:
        raise WrongLabelsError(f"{source.name} has the class '{unknown[0]}', which {training.name} lacks")
    order = np.array([theirs.index(name) for name in ours])
    label = source.manifest.label
    relabelled = replace(source.manifest, label=np.where(label == UNLABELLED, UNLABELLED, order[label]))
    return replace(source, manifest=relabelled, class_names=theirs)
