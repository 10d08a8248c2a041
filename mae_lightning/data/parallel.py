"""Work on many shards side by side: reading, decoding and hashing let threads run at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

__all__ = ["in_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, stop: Event | None = None
) -> Generator[Result, None, None]:
    """What `work` makes of each item, in the order of the items; the first error ends it all.

    Args:
        work: What to do.
        items: With what.
        workers: How many threads.
        stop: Set when it ends, however it ends: work that takes long looks at it.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            if stop is not None:
                stop.set()
