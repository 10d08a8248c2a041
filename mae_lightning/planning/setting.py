"""What is planned: a recipe's numbers, and the machines it is to run on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mae_lightning.planning.communication import Cluster, Link, cluster_of
from mae_lightning.planning.hardware import Gpu, Precision

Strategy = Literal["ddp", "fsdp"]
USUAL_NODE = 8


@dataclass(frozen=True)
class DataFacts:
    """What a plan takes from the data; stands in for a data module that is not there.

    Attributes:
        image_size: Height and width in pixels.
        num_channels: Of an image.
        num_classes: Of the labels; None where there are none.
        global_batch_size: Images of an optimiser step, over all devices.
        seed: Of the run.
        num_images: Of an epoch, each crop counted; None where it is not known.
        image_bytes: Of a stored image on average; None where it is not known.
        class_names: Of the labels, where there are names.
    """

    image_size: tuple[int, int]
    num_channels: int
    num_classes: int | None
    global_batch_size: int
    seed: int
    num_images: int | None = None
    image_bytes: float | None = None
    class_names: Sequence[str] | None = None

    @property
    def mean(self) -> tuple[float, ...]:
        """Any, a value a channel: costs do not depend on it."""
        return (0.5,) * self.num_channels

    @property
    def std(self) -> tuple[float, ...]:
        """Likewise."""
        return (0.5,) * self.num_channels


@dataclass(frozen=True)
class Setting:
    """Machines, and how they are used.

    Attributes:
        gpu: Their kind.
        devices: A node.
        nodes: Their number.
        strategy: Whether each GPU has the whole model, or its part.
        precision: Of the Trainer.
        efficiency: Share of the rate below that a step's matrix products reach.
        tflops: Rate of dense products, 10^12 operations a second.
        recomputes: Whether activations of blocks are computed again in the backward pass.
        network: Of a whole node to the others, as reached.
        max_micro_batch_size: The recipe's own bound.
    """

    gpu: Gpu
    devices: int
    nodes: int
    strategy: Strategy
    precision: Precision
    efficiency: float
    tflops: float
    recomputes: bool
    network: Link
    max_micro_batch_size: int | None = None

    @property
    def size(self) -> int:
        """All GPUs."""
        return self.devices * self.nodes

    @property
    def node_size(self) -> int:
        """GPUs of a node when there are many: what several nodes have, else at least the usual number."""
        return self.devices if self.nodes > 1 else max(self.devices, USUAL_NODE)

    @property
    def flops_per_second(self) -> float:
        """Of one GPU, as reached."""
        return self.efficiency * self.tflops * 1e12

    @property
    def cluster(self) -> Cluster:
        """The machines with their links."""
        return cluster_of(self.gpu, self.devices, self.nodes, self.network)
