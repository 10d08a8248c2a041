"""A bar with images/s on a terminal, and the pace when it is over."""

import os
import time
from threading import Lock

from tqdm import tqdm

WORKERS = min(16, os.cpu_count() or 1)
"""Threads by default."""


class Progress:
    """Counts images, from any number of threads.

    Args:
        title: What is done, in one word.
        total: How many images there are, where it is known.
    """

    def __init__(self, title: str, total: int | None = None) -> None:
        self._lock, self._start, self._count = Lock(), time.perf_counter(), 0
        self._bar = tqdm(total=total, desc=title, unit=" images", disable=None)  # None: only on a terminal

    def __call__(self, images: int) -> None:
        """So many more are done."""
        with self._lock:
            self._count += images
            self._bar.update(images)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        with self._lock:
            tqdm.write(line)

    def close(self) -> str:
        """Ends the bar, and says how fast it went."""
        self._bar.close()
        return f"{self._count / max(time.perf_counter() - self._start, 1e-9):,.0f} images/s"
