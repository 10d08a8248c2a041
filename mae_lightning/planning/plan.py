"""A plan: what a recipe costs on given machines."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from mae_lightning.planning.feeding import Feeding, feeding
from mae_lightning.planning.levers import Lever, levers
from mae_lightning.planning.memory import Memory, memory_of
from mae_lightning.planning.setting import DataFacts, Setting, Strategy
from mae_lightning.planning.step import StepCost
from mae_lightning.planning.timing import Scaling, StepTime, divided, scaling, step_time

HOUR = 3600.0


@dataclass(frozen=True)
class Length:
    """How long the recipe trains.

    Attributes:
        epochs: Passes over the images; None where steps are given.
        steps: Optimiser steps; None where epochs are given.
    """

    epochs: int | None
    steps: int | None

    def steps_of(self, facts: DataFacts) -> int | None:
        """Optimiser steps, whole ones an epoch; None where nothing says how many."""
        if self.epochs is None or facts.num_images is None:
            return self.steps
        steps = self.epochs * (facts.num_images // facts.global_batch_size)
        return min(steps, self.steps) if self.steps is not None else steps


@dataclass(frozen=True)
class Plan:
    """All figures of a plan, before they are worded or drawn.

    Attributes:
        name: Of the recipe.
        setting: The machines.
        facts: Of the data.
        cost: Of a step for an image.
        memory: By strategy.
        micro_batch: Images a GPU and pass.
        accumulation: Passes a step.
        time: Of a step.
        steps: Of the run; None where nothing says how many.
        feeding: What the input of a node has to give.
        scaling: Over numbers of GPUs.
        levers: What would help.
    """

    name: str
    setting: Setting
    facts: DataFacts
    cost: StepCost
    memory: dict[str, Memory]
    micro_batch: int
    accumulation: int
    time: StepTime
    steps: int | None
    feeding: Feeding
    scaling: list[Scaling]
    levers: list[Lever]

    @property
    def fits(self) -> bool:
        """Whether one image fits into a GPU's memory."""
        return self.memory[self.setting.strategy].largest_micro_batch > 0

    @property
    def images_per_second(self) -> float:
        """Of all GPUs together."""
        return self.facts.global_batch_size / self.time.total

    @property
    def hours(self) -> float | None:
        """Of training alone."""
        return None if self.steps is None else self.steps * self.time.total / HOUR

    @property
    def gpu_hours(self) -> float | None:
        """The same, times the GPUs."""
        return None if self.hours is None else self.hours * self.setting.size

    def figures(self) -> dict[str, Any]:
        """Everything as plain values; bytes, seconds and FLOPs."""
        memory = {
            name: {
                **asdict(part),
                "total": part.total(self.micro_batch),
                "largest_micro_batch": part.largest_micro_batch,
            }
            for name, part in self.memory.items()
        }
        derived = {
            "fits": self.fits,
            "images_per_second": self.images_per_second,
            "hours": self.hours,
            "gpu_hours": self.gpu_hours,
            "flops_per_image": self.cost.flops,
            "cores": self.feeding.cores,
        }
        return {**asdict(self), "memory": memory, **derived}


def make_plan(
    name: str,
    cost: StepCost,
    setting: Setting,
    facts: DataFacts,
    length: Length,
    *,
    images_a_core: float | None = None,
    cores: int | None = None,
    shallow: StepCost | None = None,
) -> Plan:
    """Works out a plan.

    Args:
        name: Of the recipe.
        cost: Of its step.
        setting: The machines.
        facts: Of the data.
        length: Of the run.
        images_a_core: Images a second that a core prepares, where that was measured.
        cores: Of a node, where that is known.
        shallow: Cost of the same step with a decoder of one block, where there is one to make shallower.

    Raises:
        ValueError: The global batch cannot be shared among the GPUs.
    """
    micro_batch, accumulation = divided(cost, setting, facts.global_batch_size)
    time = step_time(cost, setting, micro_batch, accumulation)
    pace = facts.global_batch_size / time.total
    needs = feeding(pace / setting.nodes, facts.image_bytes, images_a_core)
    strategies: tuple[Strategy, ...] = ("ddp", "fsdp") if setting.size > 1 else (setting.strategy,)
    return Plan(
        name=name,
        setting=setting,
        facts=facts,
        cost=cost,
        memory={other: memory_of(cost, replace(setting, strategy=other)) for other in strategies},
        micro_batch=micro_batch,
        accumulation=accumulation,
        time=time,
        steps=length.steps_of(facts),
        feeding=needs,
        scaling=scaling(cost, setting, facts.global_batch_size),
        levers=levers(cost, setting, facts.global_batch_size, needs, cores, shallow),
    )
