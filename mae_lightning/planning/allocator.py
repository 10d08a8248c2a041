"""What a process does with memory that it has freed."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Options of mallopt, as in malloc.h."""


def keep_freed_memory() -> bool:
    """Keeps what is freed for the next step, for as long as the process lives.

    glibc gives large pieces of memory back to the system when they are freed, and the system clears every page anew
    when it is next asked for. A training step on a CPU frees and asks for all of its activations; ``bench step
    --techniques`` measures what that costs. On a GPU torch keeps the device's memory by itself.

    Returns:
        Whether it does: not where the C library is another than glibc.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    never_trimmed, never_mapped = library.mallopt(TRIM_THRESHOLD, -1), library.mallopt(MMAP_MAX, 0)
    return bool(never_trimmed and never_mapped)
