"""Parts of labelled data: some classes, fewer labels, and a hold-out to choose on; what is drawn has a seed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mae_lightning.data.plan import draw
from mae_lightning.data.sources import Source

__all__ = ["hold_out", "labelled_part", "of_classes", "part_of"]

Split = TypeVar("Split", bound=str)
RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def of_classes(sources: Mapping[Split, Source], classes: str) -> dict[Split, Source]:
    """The samples of some classes alone, labelled anew from 0 in the order that was asked for; names stay with them.

    Args:
        sources: By split, labelled alike; unlabelled data to predict on stays as it is.
        classes: Their numbers, with ranges: ``0-5`` or ``0,3,7-9``.

    Raises:
        ValueError: A class is unknown, twice there or without a sample, or there are no labels.
    """
    first = next(iter(sources.values()))
    if first.num_classes is None:
        raise ValueError(f"classes {classes}: {first.name} has no labels to choose by")
    chosen = _class_numbers(classes, first)
    for number in chosen:
        if not (first.manifest.label == number).any():
            raise ValueError(f"classes {classes}: {first.name} has no sample of class {number}")
    return {
        split: source if split == "predict" and not source.manifest.is_labelled else _restricted(source, chosen)
        for split, source in sources.items()
    }


def _class_numbers(text: str, source: Source) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        found = RANGE.fullmatch(part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"classes {text!r}: {part!r} is no number and no range; write 0-5 or 0,3,7-9")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    last = (source.num_classes or 0) - 1
    for number in numbers:
        if number > last:
            raise ValueError(f"classes {text!r}: {source.name} has no class {number}; its classes are 0 to {last}")
        if numbers.count(number) > 1:
            raise ValueError(f"classes {text!r}: class {number} is there twice")
    return numbers


def _restricted(source: Source, chosen: list[int]) -> Source:
    manifest, place = source.manifest, np.full(max(chosen) + 1, -1)
    place[chosen] = np.arange(len(chosen))
    manifest = manifest.select(np.flatnonzero(np.isin(manifest.label, chosen)))
    if not len(manifest):
        raise ValueError(f"{source.name} has no sample of the classes that were asked for")
    names = source.class_names
    return replace(
        source,
        manifest=replace(manifest, label=place[manifest.label]),
        class_names=None if names is None else tuple(names[number] for number in chosen),
    )


def part_of(
    source: Source, held_out: float, fraction: float, per_class: int | None, seed: int
) -> tuple[Source, Source | None]:
    """What is left of training data to train on, and what is held out of it, if anything.

    Args:
        source: Labelled training data, unless nothing is asked for.
        held_out: Share of each class that is held out; 0 for nothing.
        fraction: Share of each class of the rest to train on.
        per_class: Samples a class of the rest to train on; None for all that `fraction` leaves.
        seed: Which of them.

    Raises:
        ValueError: Both kinds of parts are asked for, or there are too few samples or no labels.
    """
    if per_class is not None and fraction != 1:
        raise ValueError(f"label_fraction {fraction:g} and labels_per_class {per_class} exclude each other; give one")
    held: Source | None = None
    if held_out:
        rest, chosen = hold_out(source.manifest.label, held_out, seed)
        name = f"{held_out:.0%} held out of {source.name}"
        held = replace(source, name=name, manifest=source.manifest.select(chosen))
        source = replace(source, manifest=source.manifest.select(rest))
    if per_class is not None or fraction != 1:
        rows = labelled_part(source.manifest.label, float(fraction) if per_class is None else per_class, seed)
        source = replace(source, manifest=source.manifest.select(rows))
    return source, held


def labelled_part(labels: NDArray[np.int64], per_class: int | float, seed: int) -> NDArray[np.int64]:
    """Rows of a part that takes every class alike, ascending.

    Smaller parts of one seed lie inside larger ones, so that curves over label fractions compare.

    Args:
        labels: Of all rows; no -1 among them.
        per_class: A share of each class up to 1, rounded and at least one sample; or how many samples (an int).
        seed: Which of them.

    Raises:
        ValueError: The share is not within 0 to 1, or a class has fewer samples than asked for.
    """
    parts = []
    for rows in _shuffled_classes(labels, seed, "part"):
        if isinstance(per_class, float):
            if not 0 < per_class <= 1:
                raise ValueError(f"label fraction {per_class:g} must be above 0 and at most 1")
            parts.append(rows[: max(1, round(len(rows) * per_class))])
        elif not 0 < per_class <= len(rows):
            raise ValueError(
                f"{per_class} labels a class: class {labels[rows[0]]} has {len(rows)}; ask for 1 to that many"
            )
        else:
            parts.append(rows[:per_class])
    return np.sort(np.concatenate(parts))


def hold_out(labels: NDArray[np.int64], fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit and rows to choose on, each ascending; every class keeps at least one of its samples to fit.

    Args:
        labels: Of all rows.
        fraction: Share of each class that is held out, rounded up.
        seed: Which of them.

    Raises:
        ValueError: The share is not between 0 and 1, or no class has two samples.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"hold-out {fraction:g} must be between 0 and 1")
    classes = _shuffled_classes(labels, seed, "hold-out")
    shares = [round(len(rows) * fraction, 9) for rows in classes]  # 100 * 0.07 is a little above 7
    counts = [min(len(rows) - 1, math.ceil(share)) for rows, share in zip(classes, shares, strict=True)]
    chosen = np.sort(np.concatenate([rows[:count] for rows, count in zip(classes, counts, strict=True)]))
    if not len(chosen):
        raise ValueError(f"nothing can be held out of {len(labels)} samples: every class has only one")
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _shuffled_classes(labels: NDArray[np.int64], seed: int, purpose: str) -> list[NDArray[np.int64]]:
    """The rows of each class in a random order of their own."""
    if not len(labels) or labels.min() < 0:
        raise ValueError("a part of the labels was asked for, and there are samples without a label")
    random = np.random.RandomState(draw(seed, purpose) % 2**32)
    return [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
