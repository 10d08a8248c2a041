"""Micro-batches read by offset and through webdataset, locally and over HTTP, with and without workers."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from shard_making import encoded, write_tar

from mae_lightning.data import reading, urls
from mae_lightning.data.indexing import index_shards
from mae_lightning.data.loader import BadSamples, Loader
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.plan import Lanes, Slice
from mae_lightning.data.reading import Files, can_seek, lanes_for, read_rows, stream_bytes
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.sources import open_source
from mae_lightning.data.stream import MicroBatches
from mae_lightning.data.transforms import RandomResizedCropFlip

Shards = Callable[..., list[Path]]
WHOLE, LANES = Slice(), Lanes(2, 3, 5)
MAKE = SampleMaker((4, 4), 3, torch.uint8, seed=1, augmentation=RandomResizedCropFlip())


def epoch_of(
    manifest: Manifest, part: Slice = WHOLE, lanes: Lanes = LANES, first: int = 0, workers: int = 1
) -> list[tuple[list[int], list[int], torch.Tensor]]:
    """Index, label and image of each micro-batch of a training epoch, in the loader's order."""
    stream = MicroBatches(manifest, MAKE, part, 8, lanes, shuffle_seed=3)
    readers = [stream.read(2, first, worker, workers) for worker in range(workers)]
    found = []
    for number in range(len(stream) - first * part.accumulation):
        parcel = next(readers[number % workers])
        assert parcel["problems"] == []
        batch = parcel["batch"]
        assert batch["valid"].all()
        found.append((batch["index"].tolist(), batch["label"].tolist(), batch["image"]))
    assert all(next(reader, None) is None for reader in readers)
    return found


def assert_same(one: list[Any], other: list[Any]) -> None:
    assert [batch[:2] for batch in one] == [batch[:2] for batch in other]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True))


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNPACK_LIMIT", 0)


@pytest.mark.parametrize("counts", [[43], [9, 3, 20, 11], [1] * 43], ids=len)
@pytest.mark.parametrize(("first", "workers"), [(0, 1), (0, 3), (2, 2)])
def test_streaming_and_reading_by_offset_give_the_same_batches(
    make_shards: Shards, monkeypatch: pytest.MonkeyPatch, counts: list[int], first: int, workers: int
) -> None:
    plain = open_source(str(make_shards(counts)[0].parent), "train").manifest
    packed = open_source(str(make_shards(counts, ".tar.gz", folder="packed")[0].parent), "train").manifest
    expected = epoch_of(plain, first=first, workers=workers)
    assert expected[0][1] == [index % 3 for index in expected[0][0]]
    assert can_seek(packed)
    assert_same(epoch_of(packed, first=first, workers=workers), expected)
    monkeypatch.setattr(reading, "UNPACK_LIMIT", 0)
    assert not can_seek(packed)
    assert_same(epoch_of(packed, first=first, workers=workers), expected)


def test_images_do_not_depend_on_ranks_or_accumulation(make_shards: Shards) -> None:
    manifest = open_source(str(make_shards([9, 12, 22])[0].parent), "train").manifest
    whole = {index: image for batch in epoch_of(manifest) for index, image in zip(batch[0], batch[2], strict=True)}
    parts = [epoch_of(manifest, Slice(rank, 2, 2)) for rank in range(2)]
    seen = {index: image for part in parts for batch in part for index, image in zip(batch[0], batch[2], strict=True)}
    assert sorted(seen) == sorted(whole)
    assert all(torch.equal(seen[index], whole[index]) for index in whole)


def test_evaluation_pads_with_blank_rows(make_shards: Shards) -> None:
    manifest = open_source(str(make_shards([3, 2])[0].parent), "val").manifest
    parcels = list(MicroBatches(manifest, MAKE, Slice(1, 2), 4, Lanes(), None).read(0))
    assert [parcel["batch"]["valid"].tolist() for parcel in parcels] == [[True, True], [False, False]]
    assert [parcel["batch"]["index"].tolist() for parcel in parcels] == [[2, 3], [-1, -1]]
    assert [parcel["batch"]["label"].tolist() for parcel in parcels] == [[2, 0], [-1, -1]]
    assert not parcels[1]["batch"]["image"].any()


def test_a_selection_keeps_each_samples_place_and_pixels(make_shards: Shards) -> None:
    manifest = open_source(str(make_shards([9, 12])[0].parent), "train").manifest
    part = manifest.select(np.arange(1, 21, 2))
    assert part.digest != manifest.digest
    whole = {index: image for batch in epoch_of(manifest) for index, image in zip(batch[0], batch[2], strict=True)}
    for batch in epoch_of(part):
        assert all(
            index % 2 and torch.equal(image, whole[index])
            for index, image in zip(batch[0], batch[2], strict=True)
            if index in whole
        )
    assert part.row_of(5) == 2
    with pytest.raises(ValueError, match="no sample with index 4 among 10"):
        part.row_of(4)


def test_few_files_stay_open(make_shards: Shards) -> None:
    manifest = open_source(str(make_shards([1] * 6)[0].parent), "train").manifest
    files = Files(manifest, max_open=2)
    for row in [0, 1, 2, 3, 4, 5, 0]:
        assert files.read(row) == encoded(row)
        assert len(files._open) <= 2


# ------------------------------------------------------------------ workers


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_loader_keeps_the_order_and_begins_where_it_is_told(make_shards: Shards, workers: int) -> None:
    manifest = open_source(str(make_shards([9, 12, 22])[0].parent), "train").manifest
    stream = MicroBatches(manifest, MAKE, Slice(0, 1, 2), 8, Lanes(), shuffle_seed=3)
    places = iter([(0, 0), (1, 3), (1, 0)])
    loader = Loader(
        stream, lambda: next(places), "train", BadSamples(), num_workers=workers, persistent_workers=workers > 0
    )
    assert len(loader) == 10
    for epoch, first in [(0, 0), (1, 3), (1, 0)]:
        order = stream.order(epoch)
        assert [batch["index"].tolist() for batch in loader] == order.line[Slice(0, 1, 2).of(order, first)].tolist()
    loader.close()


@pytest.mark.slow
def test_spawned_workers_read_the_same(make_shards: Shards) -> None:
    manifest = open_source(str(make_shards([9, 12])[0].parent), "train").manifest
    stream = MicroBatches(manifest, MAKE, Slice(), 8, Lanes(), shuffle_seed=3)
    next(stream.read(0))  # opens files, which must stay behind
    options = {"num_workers": 1, "multiprocessing_context": "spawn"}
    loaders = [Loader(stream, lambda: (0, 0), "train", BadSamples(), **extra) for extra in ({}, options)]
    one, other = ([batch["image"] for batch in loader] for loader in loaders)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def broken_loader(tmp_path: Path, limit: int, workers: int) -> tuple[Loader, BadSamples]:
    members = {f"{number}.png": encoded(number) if number % 4 else b"broken" for number in range(12)}
    manifest = open_source(str(write_tar(tmp_path / "a.tar", members)), "train").manifest
    bad = BadSamples(limit)
    stream = MicroBatches(manifest, MAKE, Slice(), 6, Lanes(), None)
    return Loader(stream, lambda: (0, 0), "val", bad, num_workers=workers), bad


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_bad_sample_stops_a_strict_run_in_one_line(tmp_path: Path, workers: int) -> None:
    loader, _ = broken_loader(tmp_path, 0, workers)
    with pytest.raises(ValueError) as error:
        list(loader)
    assert str(error.value) == (
        f"{tmp_path}/a.tar: sample '0': bytes that begin with b'broken' are no image of JPEG, PNG, WEBP, GIF, BMP"
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_counted_once_and_named(tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    loader, bad = broken_loader(tmp_path, 3, workers)
    for _ in range(2):
        valid = torch.cat([batch["valid"] for batch in loader])
        assert valid.tolist() == [number % 4 > 0 for number in range(12)]
    assert sorted(bad.seen) == [("val", 0), ("val", 4), ("val", 8)]
    assert len(caplog.messages) == 3
    assert "skipped a bad sample (2 of at most 3)" in caplog.messages[1]
    assert "sample '4'" in caplog.messages[1]


def test_more_bad_samples_than_allowed_stop_the_run(tmp_path: Path) -> None:
    loader, _ = broken_loader(tmp_path, 2, 0)
    with pytest.raises(ValueError, match=r"sample '8': .* \(3 bad samples, and max_bad_samples is 2\)"):
        list(loader)


# ------------------------------------------------------------------ remote shards


class Server(ThreadingHTTPServer):
    """Serves a folder; breaks off every second answer, refuses what `missing` names."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.answers, self.ranges = folder, 0, 0
        self.flaky = True
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/").partition("?")[0]
        if not path.is_file():
            self.send_error(404)
            return
        data, start = path.read_bytes(), 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.server.ranges += 1
        self.server.answers += 1
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        broken = self.server.flaky and self.server.answers % 2
        self.wfile.write(data[start : start + 500] if broken else data[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(urls.time, "sleep", lambda seconds: None)
    served = Server(tmp_path)
    thread = threading.Thread(target=partial(served.serve_forever, poll_interval=0.01))
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_remote_shards_are_indexed_and_streamed_over_a_broken_line(
    make_shards: Shards, server: Server, suffix: str
) -> None:
    paths = make_shards([9, 12, 22], suffix)
    local = index_shards(str(paths[0].parent), [path.name for path in paths])
    base = f"http://127.0.0.1:{server.server_port}/shards"
    remote = index_shards(base, [path.name for path in paths])
    assert remote.digest == local.digest
    assert not can_seek(remote)
    assert_same(epoch_of(remote), epoch_of(local))
    assert server.ranges > 0
    assert [data for _, data in read_rows(remote, np.array([3, 20]))] == [encoded(3), encoded(20)]


def test_a_remote_shard_that_fails_is_named_without_its_token(tmp_path: Path, server: Server) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(ValueError) as error:
        index_shards("", [f"{base}/no.tar?token=secret"])
    assert str(error.value) == f"{base}/no.tar: cannot be read: HTTP 404 Not Found"


def test_a_shard_that_is_gone_says_so_without_its_address(make_shards: Shards, server: Server) -> None:
    """An address may hold a token, and webdataset adds it to what an error says."""
    (path,) = make_shards([3])
    manifest = index_shards(f"http://127.0.0.1:{server.server_port}/shards", [path.name])
    path.unlink()
    reasons = [str(reason) for _, reason in stream_bytes(manifest, np.arange(2))]
    assert reasons == ["cannot be read: HTTP 404 Not Found"] * 2


def test_a_server_that_never_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls.time, "sleep", lambda seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # listens, and nobody serves
        address = f"http://127.0.0.1:{silent.server_port}/a.tar"
        with (
            pytest.raises(ValueError, match="cannot be read: timed out"),
            urls.open_url(address, urls.Patience(timeout=0.05, tries=3)) as stream,
        ):
            stream.read(1)


def test_whatever_fsspec_reaches_is_a_source(make_shards: Shards) -> None:
    (path,) = make_shards([5])
    with fsspec.open("memory://bucket/a.tar", "wb") as file:
        file.write(path.read_bytes())
    manifest = index_shards("memory://bucket", ["a.tar"])
    assert [data for _, data in stream_bytes(manifest, np.arange(5))] == [encoded(number) for number in range(5)]
    with pytest.raises(ValueError, match="Protocol not known"):
        index_shards("", ["nowhere://a.tar"])


def test_lanes_follow_what_can_be_read(make_shards: Shards, streamed: None) -> None:
    assert lanes_for(open_source(str(make_shards([9, 9])[0].parent), "train").manifest, 8) == Lanes()
    packed = open_source(str(make_shards([2] * 20, ".tar.gz", folder="packed")[0].parent), "train").manifest
    lanes = lanes_for(packed, 8)
    assert (lanes.slots, lanes.phases) == (1, 8)
    assert lanes.buffer is not None
