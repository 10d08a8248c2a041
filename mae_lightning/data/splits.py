"""The data of each split, by the names that a user gives."""

from __future__ import annotations

from typing import Literal

from mae_lightning.data.sources import Source, held_out_name, open_source, with_classes_of

__all__ = ["Split", "open_splits"]

Split = Literal["train", "val", "test", "predict"]


def open_splits(train: str | None, val: str | None, predict: str | None) -> dict[Split, Source]:
    """The data of each split that was named.

    Raises:
        ValueError: None was, or one is unfit.
        FileNotFoundError: A file is not there.
    """
    if train is None and val is None and predict is None:
        raise ValueError("no data: name some with `data.train`, `data.val` or `data.predict`")
    sources: dict[Split, Source] = {}
    if train is not None:
        sources["train"] = open_source(train, "train")
        val = val if val is not None else held_out_name(train)
    held_out: dict[Split, str | None] = {"val": val, "predict": predict}
    for split, name in held_out.items():
        if name is not None:
            source = open_source(name, "val")
            sources[split] = with_classes_of(source, sources["train"]) if train is not None else source
    return sources
