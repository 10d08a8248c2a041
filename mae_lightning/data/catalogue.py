"""Data sets known by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CATALOGUE", "KnownData", "known"]

SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class KnownData:
    """What is written once about a data set, so that no config repeats it.

    Attributes:
        folder: Where its shards and `classes.txt` lie.
        splits: A split's name and the pattern of its shards in `folder`.
        num_channels: Of the images as they are stored.
        mean: A channel's mean over the training split, of pixels in 0..1.
        std: A channel's standard deviation over the training split.
        source: Where it comes from and its licence.
    """

    folder: Path
    splits: dict[str, str]
    num_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple((self.folder / "classes.txt").read_text(encoding="utf-8").splitlines())


CATALOGUE = {
    "fashion_mnist": KnownData(
        folder=SHIPPED / "fashion_mnist",
        splits={"train": "fashion-mnist-train-*.tar.gz", "val": "fashion-mnist-val-*.tar.gz"},
        num_channels=1,
        mean=(0.286369,),
        std=(0.352919,),
        source="Fashion-MNIST, 500 training and 100 validation images a class; MIT, Zalando SE, 2017",
    ),
}


def known(name: str) -> KnownData:
    """The catalogue's entry of that name.

    Raises:
        ValueError: There is none; names the nearest.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(name, CATALOGUE, n=1)
    meant = f"did you mean '{near[0]}'?" if near else f"known names: {', '.join(sorted(CATALOGUE))}"
    raise ValueError(f"no data at '{name}': neither a path nor a name in the catalogue; {meant}")
