"""What the system lets the loader's worker processes have."""

import resource
import shutil
from pathlib import Path

from mae_lightning.data.reading import MAX_OPEN
from mae_lightning.planning.checks.finding import Finding, counted, readable

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 3
"""Micro-batches of a worker that lie in shared memory: torch's two ahead, and the one in use."""
HANDLES = 256
"""Of the interpreter, its libraries, loggers and sockets."""
HANDLES_A_WORKER = 32
"""Pipes, the sentinel, and the tensors of its micro-batches in flight."""


def check_handles(workers: int, limit: int | None = None) -> Finding:
    """Whether a rank may open enough files.

    Args:
        workers: Processes that read for it.
        limit: Files that it may open; None asks the system.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    needed = HANDLES + MAX_OPEN + HANDLES_A_WORKER * workers
    may = "any number of" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    text = f"{may} open files, {counted(workers, 'worker')} need about {needed:,}"
    if limit != resource.RLIM_INFINITY and limit < needed:
        return Finding("handles", False, text, "raise the limit: ulimit -n 65536, in a container --ulimit nofile=65536")
    return Finding("handles", True, text)


def check_shared_memory(
    workers: int, local_ranks: int, micro_batch_bytes: int, folder: Path = SHARED_MEMORY, free: int | None = None
) -> Finding:
    """Whether the batches on their way from the workers fit into shared memory.

    Args:
        workers: Processes that read for a rank.
        local_ranks: Ranks on this machine.
        micro_batch_bytes: Of a rank's batch.
        folder: Where shared memory is mounted.
        free: Bytes to be had; None asks the system.
    """
    if workers == 0:
        return Finding("shared memory", True, "no workers, none needed")
    if free is None and not folder.is_dir():
        return Finding("shared memory", False, f"{folder} is missing, and workers need it", "mount a tmpfs there")
    free = shutil.disk_usage(folder).free if free is None else free
    needed = PREFETCHED * workers * local_ranks * micro_batch_bytes
    readers = f"{counted(local_ranks, 'rank')} x {counted(workers, 'worker')}"
    text = f"{readable(free)} free, {readers} need about {readable(needed)}"
    if free < needed:
        return Finding(
            "shared memory",
            False,
            text,
            "give the container more (--shm-size=16g, --ipc=host), or set --data.init_args.num_workers lower",
        )
    return Finding("shared memory", True, text)
