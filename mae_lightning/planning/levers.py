"""What would make a run faster or smaller, each with its effect worked out."""

from copy import deepcopy
from dataclasses import dataclass, replace

from torch import nn

from mae_lightning.models import TransformerDecoder
from mae_lightning.planning.feeding import REENCODED_IMAGES_A_CORE, Feeding
from mae_lightning.planning.hardware import GIB
from mae_lightning.planning.memory import memory_of
from mae_lightning.planning.setting import Setting
from mae_lightning.planning.step import StepCost
from mae_lightning.planning.timing import divided, step_time
from mae_lightning.tasks import MAEPretraining, Task


@dataclass(frozen=True)
class Lever:
    """One thing that could be changed.

    Attributes:
        name: What it is.
        effect: In words.
        speed: Images/s after over before; None where it changes something else.
        memory: Bytes that a GPU saves, as far as the micro-batch stays; None likewise.
    """

    name: str
    effect: str
    speed: float | None = None
    memory: float | None = None


def with_shallow_decoder(task: Task) -> Task | None:
    """The same task with a decoder of one block; None where there is none to make shallower."""
    decoder = task.model.decoder if isinstance(task, MAEPretraining) else None
    if not isinstance(decoder, TransformerDecoder) or len(decoder.blocks) < 2:
        return None
    shallow: Task = deepcopy(task)
    blocks = decoder.blocks
    shallow.set_submodule("model.decoder.blocks", nn.Sequential(blocks[0]))
    return shallow


def levers(
    cost: StepCost,
    setting: Setting,
    global_batch_size: int,
    needs: Feeding,
    cores: int | None,
    shallow: StepCost | None,
) -> list[Lever]:
    """What helps, the model first, the machines next, the input last.

    Args:
        cost: Of the step.
        setting: The machines.
        global_batch_size: Images of an optimiser step.
        needs: Of a node's input.
        cores: Of a node, where that is known.
        shallow: Cost with a decoder of one block, where there is one to make shallower.
    """
    compare = _Comparison(cost, setting, global_batch_size)
    found = []
    if shallow is not None:
        found.append(compare.lever("decoder of 1 block", shallow, setting, SHALLOW_PRICE))
    if setting.strategy == "ddp" and setting.size > 1:
        found.append(compare.lever("fsdp", cost, replace(setting, strategy="fsdp")))
    if not setting.recomputes and cost.recomputed_flops:
        found.append(compare.lever("activation checkpointing", cost, replace(setting, recomputes=True)))
    if setting.nodes > 1:
        faster = replace(setting, network=replace(setting.network, bandwidth=2 * setting.network.bandwidth))
        found.append(compare.lever("twice the network", cost, faster))
    return [*found, _cores(needs, cores), _reencoded(needs)]


SHALLOW_PRICE = "the paper's Table 1a: 84.8 instead of 84.9 fine-tuned, 65.5 instead of 73.5 linear"


@dataclass(frozen=True)
class _Comparison:
    """Against the plan as it is."""

    cost: StepCost
    setting: Setting
    global_batch_size: int

    def lever(self, name: str, cost: StepCost, setting: Setting, price: str = "") -> Lever:
        """The effect of another cost or setting on speed, memory and the largest micro-batch."""
        speed = self._seconds(self.cost, self.setting) / self._seconds(cost, setting)
        before, after = memory_of(self.cost, self.setting), memory_of(cost, setting)
        micro_batch, _ = divided(self.cost, self.setting, self.global_batch_size)
        saved = before.total(micro_batch) - after.total(micro_batch)
        effects = [f"{speed:.2f} x the images/s"]
        if after != before:
            effects += [
                f"{abs(saved) / GIB:.1f} GiB {'less' if saved >= 0 else 'more'} a GPU",
                f"largest micro-batch {after.largest_micro_batch:,} instead of {before.largest_micro_batch:,}",
            ]
        return Lever(name, "; ".join([*effects, *([price] if price else [])]), speed, saved)

    def _seconds(self, cost: StepCost, setting: Setting) -> float:
        return step_time(cost, setting, *divided(cost, setting, self.global_batch_size)).total


def _cores(needs: Feeding, cores: int | None) -> Lever:
    text = f"a node's GPUs take {needs.images_per_second:,.0f} images/s, which {needs.cores:.1f} cores prepare"
    if cores is None:
        return Lever("more cores", f"{text}; say --cores to know whether a node has enough")
    if cores >= needs.cores:
        return Lever("more cores", f"{text}: its {cores} are enough", speed=1.0)
    return Lever("more cores", f"{text}: its {cores} hold it to {cores / needs.cores:.0%}", speed=needs.cores / cores)


def _reencoded(needs: Feeding) -> Lever:
    """Shards of smaller images; the ratio of ImageNet's holds only for images like those."""
    if needs.is_measured:
        return Lever("re-encoded shards", "measure them: bench data --config RECIPE --data SHARDS --out FILE")
    cores = needs.images_per_second / REENCODED_IMAGES_A_CORE
    return Lever(
        "re-encoded shards",
        f"at a short side of 256 pixels {cores:.1f} cores a node instead of {needs.cores:.1f}; the pixels change",
    )
