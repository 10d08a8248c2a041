"""How long processes take to exchange gradients and weights: the alpha-beta model, and measuring its two numbers.

A message of S bytes over a link takes ``alpha + S / beta``. Among n processes on equal links (Thakur, Rabenseifner and
Gropp 2005, "Optimization of Collective Communication Operations in MPICH", Section 4; Patarasuk and Yuan 2009,
"Bandwidth optimal all-reduce algorithms", Section 3):

- all-gather and reduce-scatter on a ring: ``(n - 1) alpha + (n - 1) / n x S / beta``;
- all-reduce on a ring: twice that;
- all-reduce on double binary trees: ``2 log2(n) alpha + 2 S / beta`` (Sanders, Speck and Traeff 2009, "Two-tree
  algorithms for full bandwidth broadcast, reduction and scan"; in NCCL since 2.4). NCCL takes the faster, and so does
  this.

Nodes of g GPUs go in two levels: an all-reduce is a reduce-scatter within the node, an all-reduce of S / g between the
nodes on each GPU's share of the network, and an all-gather within the node; all-gather and reduce-scatter likewise.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from mae_lightning.planning.hardware import Gpu

LINK_SHARE = 0.8
"""Of a link's published rate that collectives reach; the bus bandwidth of NCCL's own tests is of this order."""
NVLINK_LATENCY, PCI_LATENCY, NETWORK_LATENCY = 3.4e-6, 5.7e-6, 14e-6
"""Seconds a hop on a ring: what NCCL itself reckons with (``hwLat``, protocol Simple, in its graph/tuning.cc)."""
MEASURED_SIZES = (4 * 2**10, 64 * 2**10, 512 * 2**10, 2 * 2**20, 8 * 2**20, 25 * 2**20)
"""Bytes; the last is a bucket of DDP's."""
ROUNDS = 9


@dataclass(frozen=True)
class Link:
    """A way between processes.

    Attributes:
        latency: Seconds a message takes however short it is (alpha).
        bandwidth: Bytes a second in each direction (beta).
    """

    latency: float
    bandwidth: float

    def gather(self, num_bytes: float, count: int) -> float:
        """Seconds until each of ``count`` processes has all bytes, of which each had its part; also reduce-scatter."""
        return (count - 1) * self.latency + (count - 1) / count * num_bytes / self.bandwidth

    def all_reduce(self, num_bytes: float, count: int) -> float:
        """Seconds until each of ``count`` processes has the sum of all."""
        if count == 1:
            return 0.0
        trees = 2 * math.log2(count) * self.latency + 2 * num_bytes / self.bandwidth
        return min(2 * self.gather(num_bytes, count), trees)


@dataclass(frozen=True)
class Cluster:
    """Equal nodes of equal GPUs.

    Attributes:
        devices: GPUs a node.
        nodes: Their number.
        inside: Between the GPUs of a node.
        between: Between nodes, for each GPU when all of a full node send at once.
    """

    devices: int
    nodes: int
    inside: Link
    between: Link

    @property
    def size(self) -> int:
        """All GPUs."""
        return self.devices * self.nodes

    def all_reduce(self, num_bytes: float) -> float:
        """Seconds until every GPU has the sum."""
        within = 2 * self.inside.gather(num_bytes, self.devices)
        return within + self.between.all_reduce(num_bytes / self.devices, self.nodes)

    def gather(self, num_bytes: float) -> float:
        """Seconds of an all-gather or reduce-scatter over all GPUs."""
        within = self.inside.gather(num_bytes, self.devices)
        return within + self.between.gather(num_bytes / self.devices, self.nodes)


def published_network(gbit: float) -> Link:
    """What a node's network of so many Gbit/s comes to."""
    return Link(NETWORK_LATENCY, LINK_SHARE * gbit / 8 * 1e9)


def cluster_of(gpu: Gpu, devices: int, nodes: int, network: Link) -> Cluster:
    """Nodes of a kind of GPU with its published links.

    Args:
        gpu: The kind.
        devices: A node.
        nodes: Their number.
        network: Of a whole node, which its GPUs share.
    """
    inside = Link(NVLINK_LATENCY if gpu.has_nvlink else PCI_LATENCY, LINK_SHARE * gpu.link * 1e9)
    return Cluster(devices, nodes, inside, Link(network.latency, network.bandwidth / devices))


def measure_all_reduce(sizes: Sequence[int], device: torch.device, rounds: int = ROUNDS) -> dict[int, float]:
    """Median seconds of all-reduces of these sizes among the processes of the default group, the slowest one's.

    Args:
        sizes: Bytes.
        device: That the group's backend sends from.
        rounds: Measured of each, after one that is not; sizes take turns, so that a busy moment hits them alike.
    """
    values = {size: torch.zeros(size // 4, device=device) for size in sizes}
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(rounds + 1):
        for size, value in values.items():
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(value)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                times[size].append(time.perf_counter() - start)
    medians = torch.tensor([sorted(times[size])[rounds // 2] for size in sizes], device=device)
    dist.all_reduce(medians, op=dist.ReduceOp.MAX)
    return dict(zip(sizes, medians.tolist(), strict=True))


def fit_link(seconds: Mapping[int, float], count: int) -> Link:
    """The link whose ring all-reduces among ``count`` processes come nearest to what was measured.

    Least squares of the relative errors, so that short messages count as much as long ones.

    Raises:
        ValueError: The times do not rise with the size, or there are fewer than two sizes.
    """
    if len(seconds) < 2 or count < 2:
        raise ValueError(f"a link is fitted from two sizes among two processes; there are {len(seconds)} and {count}")
    sizes = torch.tensor(list(seconds), dtype=torch.float64)
    times = torch.tensor(list(seconds.values()), dtype=torch.float64)
    steps = 2 * (count - 1)
    terms = torch.stack([torch.full_like(sizes, steps), steps / count * sizes], dim=1) / times[:, None]
    latency, per_byte = torch.linalg.lstsq(terms, torch.ones_like(times)[:, None]).solution.flatten().tolist()
    if per_byte <= 0:
        raise ValueError("the measured times do not rise with the size; measure on a quieter machine")
    return Link(max(latency, 0.0), 1 / per_byte)


def read_link(path: Path) -> Link:
    """The link that ``plan --measure-network --out`` has written.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; plan --measure-network --out {path} writes it under torchrun")
    try:
        content = json.loads(path.read_text())
        return Link(float(content["latency"]), float(content["bandwidth"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what plan --measure-network --out has written") from error
