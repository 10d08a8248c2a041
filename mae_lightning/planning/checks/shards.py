"""Whether the shards are there as the manifest says, and how often each will be read."""

import itertools
import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from mae_lightning.data.manifest import Manifest
from mae_lightning.data.parallel import in_threads
from mae_lightning.data.plan import Lanes
from mae_lightning.data.reading import can_seek
from mae_lightning.data.urls import is_remote, public_name, stored_size
from mae_lightning.planning.checks.finding import Finding, counted, readable
from mae_lightning.planning.checks.patience import within

THREADS = 16
NAMED = 3
"""Shards that a line names; more are counted."""


def check_shards(splits: Mapping[str, Manifest], rank: int, world_size: int, timeout: float) -> Finding:
    """Whether every shard answers with the size that it had when it was indexed.

    Local ones were looked at when the data was opened, on every rank; of remote ones each rank asks for its share.

    Args:
        splits: The samples of each split.
        rank: Of this process.
        world_size: Of the launch.
        timeout: Seconds for all of them.
    """
    remote = [
        (manifest.path(container), int(manifest.container_bytes[container]))
        for manifest in splits.values()
        for container in range(len(manifest.containers))
        if is_remote(manifest.path(container))
    ]
    mine = remote[rank::world_size]
    try:
        problems = within(
            timeout, lambda: list(filter(None, in_threads(partial(_problem, timeout=timeout), mine, THREADS)))
        )
    except TimeoutError:
        return Finding(
            "shards",
            False,
            f"{public_name(mine[0][0])} and others, {counted(len(mine), 'shard')}: no answer within {timeout:g} s",
            "look at its address and at this machine's way to it, or give --timeout more",
        )
    if problems:
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        return Finding(
            "shards", False, "; ".join(problems[:NAMED]) + more, "put them back, or index anew what is there"
        )
    return Finding("shards", True, "; ".join(_described(name, manifest) for name, manifest in splits.items()))


def _problem(shard: tuple[str, int], timeout: float) -> str | None:
    """What is wrong with a remote shard; None if nothing is."""
    url, expected = shard
    try:
        size = stored_size(url, timeout)
    except (ValueError, OSError) as error:
        return f"{public_name(url)} {error}"
    if expected and size is not None and size != expected:
        return f"{public_name(url)} has {size} bytes, and the manifest says {expected}"
    return None


def _described(split: str, manifest: Manifest) -> str:
    what = counted(len(manifest.containers), "shard" if manifest.packed else "file")
    size = int(manifest.container_bytes.sum())
    return f"{split} {len(manifest):,} images in {what}" + (f", {readable(size)}" if size else "")


def check_readers(
    manifest: Manifest, lanes: Lanes, batch_size: int, ranks: int, accumulation: int, workers: int
) -> Finding:
    """Whether the readers, ranks x workers, find enough shards to share.

    Every rank makes the same steps whatever the number of shards: the plan deals samples, not shards. What can be read
    by offset asks for no number of shards either. What can only stream is read once for each reader that wants a part
    of it, so that few shards mean more traffic, never a sample twice.

    Args:
        manifest: The training samples.
        lanes: How their order is cut.
        batch_size: Global batch.
        ranks: Of the run.
        accumulation: Micro-batches of a step.
        workers: Processes that read for a rank.
    """
    shards, readers = len(manifest.containers), ranks * max(1, workers)
    of = f"{counted(shards, 'shard')} for {counted(ranks, 'rank')} x {counted(max(1, workers), 'worker')}"
    if can_seek(manifest):
        return Finding("readers", True, f"{of}: read by offset, any number will do; all ranks make the same steps")
    passes = passes_over_shards(lanes, batch_size, ranks, accumulation, max(1, workers))
    text = f"{of}, streamed {passes:.3g} times an epoch"
    if shards >= readers:
        return Finding("readers", True, f"{text}; all ranks make the same steps")
    return Finding(
        "readers",
        False,
        f"{text}: too few, ranks 0 to {ranks - 1} fetch the same bytes (no sample comes twice)",
        f"pack {readers} shards or more, keep uncompressed ones on a local disk (any number will do there), or set"
        " --data.init_args.num_workers lower",
    )


def passes_over_shards(lanes: Lanes, batch_size: int, ranks: int, accumulation: int, workers: int) -> float:
    """How often a lane, and so the shards under it, is streamed an epoch: the mean number of readers that want it."""
    micro, group = batch_size // (ranks * accumulation), batch_size // lanes.slots
    readers = set()
    for step, part in itertools.product(range(math.lcm(lanes.phases, workers)), range(accumulation)):
        worker, phase = (step * accumulation + part) % workers, step % lanes.phases
        starts = (np.arange(ranks) * accumulation + part) * micro
        for rank, (first, last) in enumerate(zip(starts // group, (starts + micro - 1) // group, strict=True)):
            readers |= {(rank, worker, slot, phase) for slot in range(int(first), int(last) + 1)}
    return len(readers) / (lanes.slots * lanes.phases)
