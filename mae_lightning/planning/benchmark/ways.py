"""What is measured: a model, and the way its training step is run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from mae_lightning.tasks import MaskedPretraining

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What matrix products run in; weights are fp32 throughout, and 16 bit is autocast's."""

Compiled = Literal["none", "blocks", "whole", "graphs"]
COMPILED: tuple[Compiled, ...] = ("none", "blocks", "whole", "graphs")
"""By torch.compile: nothing, each block, the model, the model with CUDA graphs."""

Plain = Literal["", "embed", "order", "head", "queries", "attention", "fused", "input", "memory"]
"""What is done the plain way: nothing; or see :mod:`mae_lightning.planning.benchmark.plain`."""

Build = Callable[[str], MaskedPretraining]
"""Builds a task on a device; it can be sent to another process."""


@dataclass(frozen=True)
class Way:
    """How a training step is run.

    Attributes:
        model: Whose implementation.
        precision: Of matrix products.
        compiled: What of the model, which has to be ours.
        fused: Whether AdamW is one kernel; otherwise it is ``torch.optim.AdamW`` as it comes: on a CPU a loop over
            the parameters, on a GPU ``foreach``.
        plain: What our model does the plain way.
        explicit: Whether the other's attention is written out, instead of torch's scaled_dot_product_attention.
        waits: Whether the host waits for every loss.
    """

    model: Literal["ours", "huggingface", "lightly"] = "ours"
    precision: Precision = "bf16"
    compiled: Compiled = "none"
    fused: bool = True
    plain: Plain = ""
    explicit: bool = False
    waits: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether the model is this package's."""
        return self.model == "ours"

    @property
    def keeps_memory(self) -> bool:
        """Whether freed memory is kept for the next step on a CPU, as ``fit`` does it."""
        return self.is_ours and self.plain != "memory"

    @property
    def takes_floats(self) -> bool:
        """Whether images come from the host normalised, as the official input does it, and not in bytes."""
        return not self.is_ours or self.plain == "input"


@dataclass(frozen=True)
class Candidate:
    """One thing that is measured.

    Attributes:
        title: In tables.
        build: The model; another's implementation takes its sizes.
        way: How its step is run.
    """

    title: str
    build: Build
    way: Way
