"""Data sets of torchvision's that are on disk already, to be packed."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from mae_lightning.data.contents import Contents, StoredImage
from mae_lightning.data.indexing import UNLABELLED, is_image_name
from mae_lightning.data.strings import Strings

__all__ = ["TORCHVISION", "torchvision_splits"]

TORCHVISION = "torchvision:"
SPELLINGS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}


def torchvision_splits(name: str) -> dict[str, Contents]:
    """The splits of `torchvision:CLASS:FOLDER`; where it has test images and no validation images, those serve as such.

    Files keep their bytes where torchvision lets them be read; images that it holds as arrays become PNG.

    Raises:
        FileNotFoundError: The folder is not there.
        ValueError: torchvision has no such data set of labelled images, or finds no data in the folder.
    """
    kind, _, folder = name.removeprefix(TORCHVISION).partition(":")
    if not folder:
        raise ValueError(f"'{name}' should be torchvision:CLASS:FOLDER, such as torchvision:CIFAR10:downloads")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder {folder} to read torchvision's {kind} from")
    parameters = _parameters(kind)
    if "train" in parameters:
        found = {"train": _open(kind, folder, train=True), "val": _open(kind, folder, train=False)}
    elif "split" in parameters:
        found = _by_split(kind, folder)
    else:
        found = {"train": _open(kind, folder)}
    return {split: _contents(kind, dataset) for split, dataset in found.items()}


def _parameters(kind: str) -> tuple[str, ...]:
    """What the constructor of a data set takes."""
    found = getattr(datasets, kind, None)
    parameters = tuple(inspect.signature(found).parameters) if inspect.isclass(found) else ()
    if "root" not in parameters:
        names = difflib.get_close_matches(kind, datasets.__all__, n=1)
        raise ValueError(f"torchvision has no data set '{kind}' on disk" + (f"; {names[0]}?" if names else ""))
    return parameters


def _by_split(kind: str, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split, spellings in SPELLINGS.items():
        opened = (_open(kind, folder, split=spelling) for spelling in spellings)
        dataset = next((dataset for dataset in opened if dataset is not None), None)
        found |= {} if dataset is None else {split: dataset}
    if not found:
        raise ValueError(f"torchvision's {kind} has no split train, val or test")
    return found if "val" in found or "test" not in found else {"train": found["train"], "val": found["test"]}


def _open(kind: str, folder: str, **options: Any) -> Any:
    """The data set, or None if it has no such split."""
    if "loader" in _parameters(kind):
        options["loader"] = Path  # hands over where an image lies, instead of its pixels
    try:
        return getattr(datasets, kind)(folder, **options)
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        if str(error).startswith("Unknown value"):
            return None
        reason = str(error).partition(". You can use download")[0]
        raise ValueError(f"torchvision cannot read {kind} from {folder}: {reason}") from None


def _contents(kind: str, dataset: Any) -> Contents:
    def read(rows: NDArray[np.int64]) -> Iterator[StoredImage]:
        for row in rows.tolist():
            yield _stored(dataset, row)

    labels = np.array([_label(kind, dataset[row][1]) for row in range(len(dataset))], np.int64)
    names = getattr(dataset, "classes", None)
    return Contents(
        keys=Strings.pack(f"{row:08d}" for row in range(len(dataset))),
        labels=labels,
        rows=np.arange(len(dataset)),
        read=read,
        describe=lambda row: f"{kind}, sample {row}",
        digest=hashlib.sha256(repr((kind, dataset)).encode() + labels.tobytes()).hexdigest(),
        class_names=tuple(names) if names and all(isinstance(name, str) for name in names) else None,
    )


def _label(kind: str, target: Any) -> int:
    if target is None:
        return UNLABELLED
    if not isinstance(target, int | np.integer):
        raise ValueError(f"torchvision's {kind} has no class index for an image, but {type(target).__name__}")
    return int(target)


def _stored(dataset: Any, row: int) -> StoredImage:
    try:
        image = dataset[row][0]
        if isinstance(image, Path) and is_image_name(image.name):
            return image.read_bytes(), image.suffix[1:].lower()
        image = Image.open(image) if isinstance(image, Path) else image
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue(), "png"
    except (OSError, ValueError, SyntaxError) as error:
        return error, "png"
