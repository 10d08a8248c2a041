"""Many short strings in two arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Strings"]


class Strings(Sequence[str]):
    """A read-only list of strings kept as one run of bytes: millions of names stay small, and workers share them.

    A list of `str` would be copied into every worker, object by object, as reference counts are touched.
    """

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.text = text
        self.ends = ends

    @classmethod
    def pack(cls, items: Iterable[str]) -> Strings:
        encoded = [item.encode("utf-8", "surrogateescape") for item in items]
        ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Strings: ...
    def __getitem__(self, place: int | slice) -> str | Strings:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = self.ends[place - 1] if place else 0
        return bytes(self.text[start : self.ends[place]]).decode("utf-8", "surrogateescape")

    def take(self, places: NDArray[np.int64]) -> Strings:
        """Those at `places`, in that order."""
        lengths = np.diff(self.ends, prepend=0)[places]
        ends = np.cumsum(lengths, dtype=np.int64)
        letters = np.arange(int(lengths.sum())) + np.repeat(self.ends[places] - ends, lengths)
        return Strings(self.text[letters], ends)
