"""Whether the ranks can sum a tensor together, and how fast."""

import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]  # public, and not marked so

from mae_lightning.planning.checks.finding import Finding, readable
from mae_lightning.planning.checks.patience import within

CHECK = "all-reduce"
ROUNDS = 3
BYTES = {"nccl": 2**28, "gloo": 2**22}
"""Large enough that the bandwidth counts and not the start, small enough for a second."""


def check_all_reduce(store: Store, rank: int, world_size: int, device: torch.device, timeout: float) -> Finding:
    """One sum over all ranks for its value, and some for the time.

    Args:
        store: Where the ranks meet.
        rank: Of this process.
        world_size: Of the launch.
        device: A GPU sums over NCCL, a CPU over gloo.
        timeout: Seconds for all of it.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        return within(timeout, lambda: _measured(backend, store, rank, world_size, device, timeout))
    except TimeoutError:
        reason = f"no sum over {backend} within {timeout:g} s"
    except RuntimeError as error:  # what torch raises for the network, for NCCL and for a rank that died
        reason = f"{backend}: {' '.join(str(error).split())[:200]}"
    interface = "NCCL_SOCKET_IFNAME (NCCL_DEBUG=INFO says more)" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    cure = f"open the ports between the machines, or name the network's interface in {interface}"
    return Finding(CHECK, False, reason, cure)


def _measured(backend: str, store: Store, rank: int, world_size: int, device: torch.device, timeout: float) -> Finding:
    limit = timedelta(seconds=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=limit)
    try:
        values = torch.ones(BYTES[backend] // 4, device=device)
        dist.all_reduce(values)
        total = float(values[-1])  # waits for the device
        dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)
        start = time.perf_counter()
        for _ in range(ROUNDS):
            dist.all_reduce(values)
        values[-1].item()
        seconds = (time.perf_counter() - start) / ROUNDS
    finally:
        dist.destroy_process_group()
    if total != world_size:
        return Finding(
            CHECK, False, f"{world_size} ones sum to {total:g} over {backend}", "test the GPUs and their links"
        )
    if world_size == 1:
        return Finding(CHECK, True, f"{backend} starts; one rank has nobody to send to")
    # Each byte goes over the slowest link 2 (n - 1) / n times, whatever the algorithm (nccl-tests, PERFORMANCE.md).
    bandwidth = BYTES[backend] / seconds * 2 * (world_size - 1) / world_size
    return Finding(CHECK, True, f"{backend}, {readable(BYTES[backend])} at {readable(bandwidth)}/s of bus bandwidth")
