"""How long a step takes, and what of the communication is not hidden behind computing.

Products take their FLOPs over the rate that is reached, but no pass is shorter than it takes to start its operations;
the optimiser moves its values through memory. DDP sums
gradients in buckets of 25 MB while the backward pass goes on (Li et al. 2020, arXiv 2006.15704, Section 3.2): all but
the last bucket can hide, and under accumulation only the last micro-batch sends. FSDP gathers each block's weights for
the forward and again for the backward pass and reduces and scatters its gradients, every micro-batch: all but one
block's share of each can hide (Zhao et al. 2023, arXiv 2304.11277, Section 3.3). Dropped are waiting for slow nodes,
and that small batches reach less of a GPU's rate: efficiencies are upper bounds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mae_lightning.data.batching import split_batch
from mae_lightning.planning.memory import memory_of
from mae_lightning.planning.setting import Setting
from mae_lightning.planning.step import StepCost

BUCKET = 25 * 2**20
START = 5e-6
"""Seconds to start an operation, roughly, in torch without compilation or CUDA graphs."""
MAX_GPUS = 1024


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimiser step.

    Attributes:
        computing: Forward and backward, of all micro-batches.
        optimiser: The update.
        sending: Communication, hidden or not.
        exposed: The part of it that nothing hides.
    """

    computing: float
    optimiser: float
    sending: float
    exposed: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.computing + self.optimiser + self.exposed


def step_time(cost: StepCost, setting: Setting, micro_batch: int, accumulation: int) -> StepTime:
    """The time of a step of ``accumulation`` micro-batches on each GPU."""
    rate = setting.flops_per_second
    starting = cost.operations * START
    backward_flops = cost.backward_flops + setting.recomputes * cost.recomputed_flops
    forward = max(micro_batch * cost.forward_flops / rate, starting / 3)
    backward = max(micro_batch * backward_flops / rate, 2 * starting / 3)
    sending, exposed = _communication(cost, setting, forward, backward, accumulation)
    parts = setting.size if setting.strategy == "fsdp" else 1
    moved = 2 * (cost.optimiser_values + 1) + 1  # weight and values are read and written, the gradient is read
    updated = moved * setting.precision.weight_bytes * cost.trained / parts
    return StepTime(
        computing=accumulation * (forward + backward),
        optimiser=updated / (setting.gpu.memory_bandwidth * 1e9),
        sending=sending,
        exposed=exposed,
    )


def _communication(
    cost: StepCost, setting: Setting, forward: float, backward: float, accumulation: int
) -> tuple[float, float]:
    """Seconds of sending a step, and those that nothing hides."""
    cluster, width = setting.cluster, setting.precision.weight_bytes
    if cluster.size == 1:
        return 0.0, 0.0
    if setting.strategy == "ddp":
        size = width * cost.trained
        buckets = max(1, math.ceil(size / BUCKET))
        sending = buckets * cluster.all_reduce(size / buckets)
        return sending, _exposed(sending, backward, buckets)
    units = cost.num_blocks + 1
    gather = units * cluster.gather(width * cost.parameters / units)
    scatter = units * cluster.gather(width * cost.trained / units)
    exposed = _exposed(gather, forward, units) + _exposed(gather + scatter, backward, units)
    return accumulation * (2 * gather + scatter), accumulation * exposed


def _exposed(sending: float, computing: float, parts: int) -> float:
    """What is left of sending in equal parts, of which all but one can run beside the computing."""
    return sending / parts + max(0.0, (sending - computing) * (parts - 1) / parts)


@dataclass(frozen=True)
class Scaling:
    """One row of the table of GPU counts.

    Attributes:
        gpus: Their number.
        nodes: They are in.
        micro_batch: Images a GPU and pass.
        accumulation: Passes a step.
        images_per_second: Of all together.
        efficiency: Against as many times one GPU, the global batch the same: what the recipe allows.
        efficiency_at_same_share: Against one GPU, with as many images on each GPU as in the plan.
    """

    gpus: int
    nodes: int
    micro_batch: int
    accumulation: int
    images_per_second: float
    efficiency: float
    efficiency_at_same_share: float


def scaling(cost: StepCost, setting: Setting, global_batch_size: int) -> list[Scaling]:
    """From one GPU to 1024, nodes filled one after the other, where the global batch can be shared among them."""
    share = divided(cost, setting, global_batch_size)
    alone = replace(setting, devices=1, nodes=1)
    baseline = _pace(cost, alone, *divided(cost, alone, global_batch_size), 1)
    baseline_at_share = _pace(cost, alone, *share, 1)
    rows = []
    for devices, nodes in shapes(setting.node_size):
        here = replace(setting, devices=devices, nodes=nodes)
        try:
            micro_batch, accumulation = divided(cost, here, global_batch_size)
        except ValueError:
            continue
        pace = _pace(cost, here, micro_batch, accumulation, here.size)
        same = _pace(cost, here, *share, here.size)
        rows.append(
            Scaling(
                here.size,
                nodes,
                micro_batch,
                accumulation,
                pace,
                pace / (here.size * baseline),
                same / (here.size * baseline_at_share),
            )
        )
    return rows


def shapes(devices: int) -> Iterator[tuple[int, int]]:
    """GPUs a node and nodes: doubling within the first node, then in full nodes."""
    inside = [2**power for power in range(devices.bit_length()) if 2**power < devices]
    yield from ((count, 1) for count in inside)
    nodes = 1
    while nodes * devices <= MAX_GPUS:
        yield devices, nodes
        nodes *= 2


def divided(cost: StepCost, setting: Setting, global_batch_size: int) -> tuple[int, int]:
    """Micro-batch and accumulation: the fewest passes that fit; where nothing fits, as if one image did.

    Raises:
        ValueError: The global batch cannot be shared among the GPUs.
    """
    fits = max(1, memory_of(cost, setting).largest_micro_batch)
    bound = min(fits, setting.max_micro_batch_size or fits)
    return split_batch(global_batch_size, setting.size, max_micro_batch_size=bound)


def _pace(cost: StepCost, setting: Setting, micro_batch: int, accumulation: int, gpus: int) -> float:
    """Images a second."""
    return gpus * micro_batch * accumulation / step_time(cost, setting, micro_batch, accumulation).total
