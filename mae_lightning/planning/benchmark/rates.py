"""What a device can do at best, measured, and what a step asks of it, counted."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mae_lightning.planning.benchmark.ways import DTYPES, Build
from mae_lightning.planning.step import training_loss

SIDES = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices whose product is timed."""
COPIED = {"cpu": 2**28, "cuda": 2**30}
"""Bytes of the array that is copied: far more than caches hold."""
REPEATS = {"cpu": 2, "cuda": 20}
ADAMW_MOVES = 7
"""Values a weight: weight, gradient and both moments are read; weight and moments are written."""


def matrix_rate(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of one large matrix product of noise, in the type that products run in."""
    side, dtype = SIDES[device.type], DTYPES[precision]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * side**3 / _seconds(lambda: torch.mm(left, right, out=out), device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second that a large copy in the device's memory reads and writes."""
    source = torch.randint(256, (COPIED[device.type],), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * COPIED[device.type] / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """Of one repeat, after one that warms up."""
    work()
    wait(device)
    start = time.perf_counter()
    for _ in range(REPEATS[device.type]):
        work()
    wait(device)
    return (time.perf_counter() - start) / REPEATS[device.type]


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def moved_bytes(build: Build, batch_size: int, precision: str) -> int:
    """Bytes that a step of our model moves, uncompiled, if no operation finds its inputs in a cache.

    Every operation reads what it takes and writes what it makes once; AdamW, fused, moves seven values a weight. An
    estimate from above: caches save some of it. Counted on tensors without memory.

    Args:
        build: The model.
        batch_size: Images.
        precision: Of matrix products.
    """
    task = build("meta").train()
    traffic = _Traffic()
    with FakeTensorMode(allow_non_fake_inputs=True):
        task.to_empty(device="cpu")
        images = torch.zeros(batch_size, task.model.num_channels, *task.model.image_size, dtype=torch.uint8)
        with traffic, torch.autocast("cpu", DTYPES[precision], enabled=precision != "fp32"):
            loss = training_loss(task, images)
        with traffic:
            torch.autograd.backward(loss)
    trained = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
    return traffic.moved + ADAMW_MOVES * DTYPES["fp32"].itemsize * trained


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what goes into and comes out of each operation that makes something.

    Attributes:
        moved: Bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation."""
        result = func(*args, **(kwargs or {}))
        taken, given = _tensors((args, kwargs)), _tensors(result)
        sources = {tensor.untyped_storage()._cdata for tensor in taken}
        made = [tensor for tensor in given if tensor.untyped_storage()._cdata not in sources or _writes(func)]
        if made:
            self.moved += sum(_size(tensor) for tensor in (*taken, *made))
        return result


def _writes(func: Any) -> bool:
    """Whether an operation changes what it takes."""
    return bool(func._schema.is_mutable)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if torch.is_tensor(value)]


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor; one that is expanded has no more than its storage."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())
