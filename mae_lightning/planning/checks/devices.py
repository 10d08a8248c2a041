"""Whether the accelerator asked for is there, with memory for the weights."""

import os
from pathlib import Path

import torch

from mae_lightning.planning.checks.finding import Finding, readable

CROWDED = 0.5
"""With less than this share of a GPU's memory free, another process is on it."""


def check_device(accelerator: str, local_rank: int, needed: int) -> Finding:
    """The device of a rank.

    Args:
        accelerator: ``cuda``, ``cpu``, or another's name.
        local_rank: Which of the machine's devices.
        needed: Bytes of weights, gradients and optimiser state, the least that any run holds.
    """
    if accelerator == "cpu":
        return _memory(f"CPU, {os.cpu_count()} cores", available_memory(), None, needed)
    if accelerator != "cuda":
        return Finding("device", None, f"accelerator {accelerator}: known to Lightning, not looked at")
    if not torch.cuda.is_available():
        why = "this torch has no CUDA" if torch.version.cuda is None else "torch finds no GPU"
        return Finding(
            "device",
            False,
            f"the trainer asks for a GPU, and {why}",
            "look at nvidia-smi and at the container's GPUs, or add --config trainer/cpu",
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        return Finding(
            "device",
            False,
            f"local rank {local_rank}, and this machine shows {count} GPUs",
            "start as many processes a machine as it has GPUs; CUDA_VISIBLE_DEVICES hides some",
        )
    free, total = torch.cuda.mem_get_info(local_rank)
    return _memory(torch.cuda.get_device_name(local_rank), free, total, needed)


def _memory(name: str, free: int, total: int | None, needed: int) -> Finding:
    whole = f" of {readable(total)}" if total else ""
    text = f"{name}, {readable(free)}{whole} free, weights and AdamW take {readable(needed)}"
    if free < needed:
        return Finding(
            "device",
            False,
            f"{text}: too little",
            "free the memory, shard the model (--config trainer/fsdp), or shrink it",
        )
    if total and free < CROWDED * total:
        return Finding("device", False, f"{text}: another process is on it", "end that process (nvidia-smi names it)")
    return Finding("device", True, text)


def available_memory() -> int:
    """Bytes that this machine gives to new processes without swapping."""
    facts = Path("/proc/meminfo")
    if facts.is_file():
        kilobytes = dict(line.split()[:2] for line in facts.read_text().splitlines())
        return 1024 * int(kilobytes["MemAvailable:"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
