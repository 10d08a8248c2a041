"""Whether shards are there, and how often each is streamed: against readers that are run."""

import functools
import http.server
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from mae_lightning.data.manifest import Manifest
from mae_lightning.data.plan import Lanes, Slice, default_lanes, training_order
from mae_lightning.data.strings import Strings
from mae_lightning.data.urls import stored_size
from mae_lightning.planning.checks.shards import check_readers, check_shards, passes_over_shards

SIZE = 100


def manifest_of(base: str, shards: int, samples: int = 64) -> Manifest:
    zeros = np.zeros(samples, np.int64)
    return Manifest(
        base,
        True,
        Strings.pack(f"{shard}.tar" for shard in range(shards)),
        np.full(shards, SIZE),
        np.sort(np.arange(samples) % shards),
        Strings.pack(str(place) for place in range(samples)),
        zeros.astype(np.uint8),
        zeros,
        zeros + 10,
        zeros - 1,
        np.arange(samples),
    )


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    for shard in range(4):
        (tmp_path / f"{shard}.tar").write_bytes(bytes(SIZE))
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_shards_that_are_there(served: str) -> None:
    finding = check_shards({"train": manifest_of(served, 4), "val": manifest_of("", 2)}, 0, 1, 10.0)
    assert finding.ok
    assert finding.text == "train 64 images in 4 shards, 400 B; val 64 images in 2 shards, 200 B"


def test_each_rank_asks_for_its_share(served: str, tmp_path: Path) -> None:
    (tmp_path / "1.tar").unlink()
    (tmp_path / "3.tar").write_bytes(bytes(SIZE + 1))
    splits = {"train": manifest_of(served, 4)}
    assert check_shards(splits, 0, 2, 10.0).ok
    finding = check_shards(splits, 1, 2, 10.0)
    assert finding.ok is False
    assert "1.tar cannot be read: HTTP 404" in finding.text
    assert "3.tar has 101 bytes, and the manifest says 100" in finding.text
    assert "index anew" in finding.cure


def test_a_server_that_is_silent() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:  # listens, and nobody serves
        begun = time.monotonic()
        finding = check_shards({"train": manifest_of(f"http://127.0.0.1:{server.server_port}", 40)}, 0, 1, 0.3)
    assert finding.ok is False
    assert time.monotonic() - begun < 5
    assert "within 0.3 s" in finding.text or "timed out" in finding.text


def test_size_of_a_file_that_fsspec_reaches(tmp_path: Path) -> None:
    with fsspec.open("memory://shards/a.tar", "wb") as file:
        file.write(bytes(7))
    assert stored_size("memory://shards/a.tar", 1.0) == 7
    with pytest.raises(ValueError, match="cannot be read"):
        stored_size("memory://shards/b.tar", 1.0)


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize(("ranks", "workers", "shards"), list(itertools.product((1, 2, 4), (1, 2, 3), (1, 2, 8, 24))))
@pytest.mark.parametrize("accumulation", [1, 2])
def test_passes_are_those_of_the_readers(ranks: int, workers: int, shards: int, accumulation: int) -> None:
    """Counted lane by lane from the positions that each worker of each rank is given."""
    batch, steps = 48, 24
    lanes = default_lanes(batch, shards, 100.0, 64)
    order = training_order(np.full(shards, batch * steps // shards), batch, seed=0, epoch=0, lanes=lanes)
    wanted = set()
    for rank, worker in itertools.product(range(ranks), range(workers)):
        positions = Slice(rank, ranks, accumulation).of(order, 0, worker, workers)
        of_lane = np.searchsorted(order.bounds, positions.ravel(), "right") - 1
        wanted |= {(rank, worker, int(lane)) for lane in of_lane}
    assert passes_over_shards(lanes, batch, ranks, accumulation, workers) == len(wanted) / (len(order.bounds) - 1)


def test_local_shards_do_in_any_number() -> None:
    finding = check_readers(manifest_of("/data", 1), Lanes(), 64, 8, 1, 8)
    assert finding.ok
    assert "1 shard for 8 ranks x 8 workers: read by offset" in finding.text


def test_few_shards_to_stream() -> None:
    manifest = manifest_of("http://host", 2)
    finding = check_readers(manifest, default_lanes(64, 2, 1.0, 64), 64, 2, 1, 2)
    assert finding.ok is False
    assert "2 shards for 2 ranks x 2 workers, streamed 2 times an epoch: too few, ranks 0 to 1" in finding.text
    assert "pack 4 shards or more" in finding.cure


def test_enough_shards_to_stream() -> None:
    manifest = manifest_of("http://host", 16)
    finding = check_readers(manifest, default_lanes(64, 16, 1.0, 64), 64, 2, 1, 8)
    assert finding.ok
    assert "streamed 1 times an epoch" in finding.text


def test_no_workers_read_as_one() -> None:
    manifest = manifest_of("http://host", 2)
    assert check_readers(manifest, default_lanes(64, 2, 1.0, 64), 64, 2, 1, 0).ok
