"""The alpha-beta model, against rings played step by step and times made up for a known link."""

import json
import math
from pathlib import Path

import pytest

from mae_lightning.planning.communication import (
    LINK_SHARE,
    NETWORK_LATENCY,
    NVLINK_LATENCY,
    Cluster,
    Link,
    cluster_of,
    fit_link,
    published_network,
    read_link,
)
from mae_lightning.planning.hardware import GPUS

LINK = Link(1e-5, 1e10)


def played_ring(num_bytes: float, count: int, link: Link, rounds: int) -> float:
    """Every process hands a chunk to its neighbour; a pass takes as many turns as there are others."""
    chunk, now = num_bytes / count, 0.0
    for _ in range(rounds):
        for _ in range(count - 1):
            now += link.latency + chunk / link.bandwidth
    return now


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("size", [1e3, 1e8])
def test_rings(count: int, size: float) -> None:
    assert LINK.gather(size, count) == pytest.approx(played_ring(size, count, LINK, 1))
    assert LINK.all_reduce(size, 2) == pytest.approx(played_ring(size, 2, LINK, 2))
    assert LINK.all_reduce(size, count) <= played_ring(size, count, LINK, 2) * (1 + 1e-9)


def test_many_processes_take_trees() -> None:
    assert LINK.all_reduce(1e3, 1024) == pytest.approx(2 * 10 * 1e-5 + 2e3 / 1e10)
    assert LINK.all_reduce(1e9, 8) == pytest.approx(played_ring(1e9, 8, LINK, 2))
    assert LINK.all_reduce(1e9, 1) == LINK.gather(1e9, 1) == 0


def test_two_levels() -> None:
    slow = Link(1e-4, 1e9)
    cluster = Cluster(8, 4, LINK, slow)
    size = 1e9
    between = played_ring(size / 8, 4, slow, 2)
    assert cluster.all_reduce(size) == pytest.approx(played_ring(size, 8, LINK, 2) + between)
    assert cluster.gather(size) == pytest.approx(played_ring(size, 8, LINK, 1) + between / 2)
    assert Cluster(1, 1, LINK, slow).all_reduce(size) == 0
    assert Cluster(8, 1, LINK, slow).all_reduce(size) == pytest.approx(LINK.all_reduce(size, 8))


def test_no_gpu_sends_less_than_the_lower_bound() -> None:
    """A node sends and takes in at least 2 (m - 1) / m of everything (Patarasuk and Yuan 2009)."""
    cluster = cluster_of(GPUS["h100"], 8, 16, published_network(3200.0))
    assert cluster.all_reduce(1e10) > 2 * 15 / 16 * 1e10 / (LINK_SHARE * 400e9)


def test_published_links() -> None:
    cluster = cluster_of(GPUS["h100"], 8, 2, published_network(3200.0))
    assert cluster.inside == Link(NVLINK_LATENCY, LINK_SHARE * 450e9)
    assert cluster.between == Link(NETWORK_LATENCY, LINK_SHARE * 50e9)
    assert cluster.size == 16


@pytest.mark.parametrize("count", [2, 5])
def test_a_link_is_found_again(count: int) -> None:
    sizes = [2**power for power in range(12, 25, 3)]
    found = fit_link({size: 2 * LINK.gather(float(size), count) for size in sizes}, count)
    assert found.latency == pytest.approx(LINK.latency)
    assert found.bandwidth == pytest.approx(LINK.bandwidth)
    noisy = fit_link(
        {size: 2 * LINK.gather(float(size), count) * (1.2, 0.8)[number % 2] for number, size in enumerate(sizes)}, count
    )
    assert math.log(noisy.bandwidth / LINK.bandwidth) == pytest.approx(0, abs=0.3)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="two sizes among two processes"):
        fit_link({1024: 1.0}, 2)
    with pytest.raises(ValueError, match="do not rise with the size"):
        fit_link({1024: 1.0, 2048: 0.1}, 2)


def test_a_link_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "link.json"
    with pytest.raises(FileNotFoundError, match="measure-network"):
        read_link(file)
    file.write_text("[]")
    with pytest.raises(ValueError, match="is not what plan --measure-network --out has written"):
        read_link(file)
    file.write_text(json.dumps({"latency": 1e-5, "bandwidth": 1e10}))
    assert read_link(file) == LINK
