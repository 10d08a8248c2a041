"""What a training step computes and keeps, counted by running it on tensors without memory.

torch's FakeTensorMode runs every operation for shapes and types alone, under autocast and with the fused attention that
a GPU would take. FLOPs are torch's count (matrix products and convolutions). Activations are the storages that autograd
keeps between forward and backward, each once, without the parameters (see ``torch.autograd.graph``'s hooks).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mae_lightning.models import PatchMask, fuse_attention, repeated_blocks
from mae_lightning.planning.hardware import Precision
from mae_lightning.tasks import Classification, MaskedPretraining, Task, TokenizerTraining

COUNTED_AT = (2, 3)
"""Batch sizes; BatchNorm takes no single image."""


@dataclass(frozen=True)
class Bytes:
    """Memory as a function of the batch: what does not grow with it, and what each image adds."""

    fixed: float = 0.0
    per_image: float = 0.0

    def at(self, images: int) -> float:
        """Bytes with so many images."""
        return self.fixed + self.per_image * images


@dataclass(frozen=True)
class StepCost:
    """A training step of one model.

    Attributes:
        parameters: Their number.
        trained: Those with a gradient.
        largest_block: Parameters of the largest of the repeated blocks.
        outside_blocks: Parameters outside of them.
        num_blocks: Repeated blocks.
        optimiser_values: The optimiser keeps so many for each parameter that trains.
        forward_flops: Of an image; a multiplication with its addition are two.
        backward_flops: Likewise.
        recomputed_flops: Likewise, of what the backward pass computes again if blocks are recomputed.
        operations: Of a pass forward and backward, those that make something new.
        kept: Between forward and backward.
        kept_outside: The part of it outside of the repeated blocks.
        block_inputs: What is kept of the blocks when they are recomputed.
        kept_in_block: The greatest part of one block.
        working: What goes into and comes out of the operation that needs most.
    """

    parameters: int
    trained: int
    largest_block: int
    outside_blocks: int
    num_blocks: int
    optimiser_values: int
    forward_flops: float
    backward_flops: float
    recomputed_flops: float
    operations: int
    kept: Bytes
    kept_outside: Bytes
    block_inputs: Bytes
    kept_in_block: Bytes
    working: Bytes

    @property
    def flops(self) -> float:
        """Of an image, forward and backward."""
        return self.forward_flops + self.backward_flops


def count_step(task: Task, image_size: tuple[int, int], num_channels: int, precision: Precision) -> StepCost:
    """Counts a step of a task, which is left as it is and may lie on the meta device.

    Raises:
        ValueError: The task is of a kind whose step is not known here.
    """
    task = deepcopy(task).train().to("meta")
    fuse_attention(task)
    if precision.weight_bytes == 2:
        task.to(torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        task.to_empty(device="cpu")
        counts = [_Count.of(task, images, (num_channels, *image_size), precision) for images in COUNTED_AT]
    blocks = [_size(block) for block in repeated_blocks(task)]
    parameters, last = _size(task), counts[-1]
    return StepCost(
        parameters=parameters,
        trained=sum(p.numel() for p in task.parameters() if p.requires_grad),
        largest_block=max(blocks, default=0),
        outside_blocks=parameters - sum(blocks),
        num_blocks=len(blocks),
        optimiser_values=1 if getattr(task, "optimizer_name", "adamw") == "lars" else 2,
        forward_flops=last.forward_flops / COUNTED_AT[-1],
        backward_flops=last.backward_flops / COUNTED_AT[-1],
        recomputed_flops=last.share_of_blocks * last.forward_flops / COUNTED_AT[-1],
        operations=last.operations.made,
        kept=_line([count.total for count in counts]),
        kept_outside=_line([count.kept.get(None, 0) for count in counts]),
        block_inputs=_line([count.inputs_of_blocks for count in counts]),
        kept_in_block=_greatest([count.sizes_of_blocks for count in counts]),
        working=_greatest([count.operations.sizes for count in counts]),
    )


def training_loss(task: Task, images: Tensor) -> Tensor:
    """The loss of a training step on images in bytes; labels and masks are any of the right shape.

    Raises:
        ValueError: The task is of a kind whose step is not known here.
    """
    count = len(images)
    if isinstance(task, MaskedPretraining):
        order = torch.rand(count, task.model.num_patches, device=images.device).argsort(dim=1)
        kept, masked = order[:, : task.num_kept], order[:, task.num_kept :]
        is_masked = torch.ones(order.shape, device=images.device).scatter(1, kept, 0.0)
        loss: Tensor = task.model(task.normalize(images), PatchMask(kept, masked, is_masked)).loss_per_patch.mean()
        return loss
    if isinstance(task, Classification):
        targets = task.soft_targets(torch.zeros(count, dtype=torch.int64, device=images.device))
        return F.cross_entropy(task(images).float(), targets)
    if isinstance(task, TokenizerTraining):
        return task.tokenizer.loss(task.pixels(images), 1.0).mean()
    raise ValueError(f"{type(task).__name__}: only this package's own tasks can be planned")


@dataclass
class _Count:
    """One forward and backward pass.

    Attributes:
        operations: What was run.
        kept: Bytes by the block that they were kept in; None outside of all.
        inputs: Bytes of each block's input.
    """

    operations: "_Operations"
    kept: dict[nn.Module | None, int] = field(default_factory=dict)
    inputs: dict[nn.Module, int] = field(default_factory=dict)
    forward_flops: int = 0
    backward_flops: int = 0

    @classmethod
    def of(cls, task: Task, num_images: int, shape: tuple[int, ...], precision: Precision) -> "_Count":
        count = cls(_Operations(_storages(task)))
        images = torch.zeros(num_images, *shape, dtype=torch.uint8)
        autocast = torch.autocast("cpu", torch.bfloat16) if precision.is_autocast else nullcontext()
        with count.operations, FlopCounterMode(display=False) as counter, autocast, count._watching(task):
            loss = training_loss(task, images)
        count.forward_flops = counter.get_total_flops()
        with count.operations, FlopCounterMode(display=False) as counter:
            loss.backward()  # type: ignore[no-untyped-call]
        count.backward_flops = counter.get_total_flops()
        task.zero_grad()
        return count

    @property
    def total(self) -> int:
        return sum(self.kept.values())

    @property
    def sizes_of_blocks(self) -> list[int]:
        return [size for block, size in self.kept.items() if block is not None]

    @property
    def inputs_of_blocks(self) -> int:
        """Of those that keep anything; the others do not train."""
        return sum(size for block, size in self.inputs.items() if block in self.kept)

    @property
    def share_of_blocks(self) -> float:
        """That keep anything."""
        return sum(block in self.kept for block in self.inputs) / max(1, len(self.inputs))

    @contextmanager
    def _watching(self, task: Task) -> Iterator[None]:
        """Notes what autograd keeps, and in which block."""
        seen = _storages(task)
        inside: list[nn.Module] = []

        def keep(tensor: Tensor) -> Tensor:
            block = inside[-1] if inside else None
            if _storage(tensor) not in seen:
                seen.add(_storage(tensor))
                held.append(tensor)
                self.kept[block] = self.kept.get(block, 0) + tensor.untyped_storage().nbytes()
            return tensor

        def enter(block: nn.Module, inputs: tuple[Any, ...]) -> None:
            inside.append(block)
            self.inputs[block] = sum(tensor.untyped_storage().nbytes() for tensor in inputs if torch.is_tensor(tensor))

        def leave(block: nn.Module, *_: object) -> None:
            inside.pop()

        held: list[Tensor] = []  # so that no storage takes the number of one that is gone
        hooks = [
            hook
            for block in repeated_blocks(task)
            for hook in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
        ]
        try:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                yield
        finally:
            for hook in hooks:
                hook.remove()


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how much each operation takes and makes.

    Args:
        weights: Storages that are not counted.

    Attributes:
        sizes: Bytes of each, in their order.
        made: How many make something new; the others are views.
    """

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = weights
        self.sizes: list[int] = []
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation."""
        result = func(*args, **(kwargs or {}))
        taken, given = _sizes((args, kwargs)), _sizes(result)
        self.made += not given.keys() <= taken.keys()
        self.sizes.append(sum(size for key, size in (taken | given).items() if key not in self.weights))
        return result


def _sizes(values: Any) -> dict[int, int]:
    """Bytes by storage."""
    tensors = (value for value in tree_leaves(values) if torch.is_tensor(value))
    return {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}


def _storages(task: Task) -> set[int]:
    return {_storage(tensor) for tensor in (*task.parameters(), *task.buffers())}


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _line(sizes: list[int]) -> Bytes:
    """The line through what was counted at the two batch sizes."""
    slope = (sizes[1] - sizes[0]) / (COUNTED_AT[1] - COUNTED_AT[0])
    return Bytes(sizes[0] - slope * COUNTED_AT[0], slope)


def _greatest(sizes: list[list[int]]) -> Bytes:
    """Above the lines of all parts: the greatest start and the greatest slope."""
    lines = [_line(list(pair)) for pair in zip(*sizes, strict=True)] or [Bytes()]
    return Bytes(max(line.fixed for line in lines), max(line.per_image for line in lines))
