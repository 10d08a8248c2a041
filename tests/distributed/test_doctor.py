"""``doctor`` with planted faults: one red line each that names rank and cure, in time, and no hang."""

import functools
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mae_lightning
from mae_lightning.data.indexing import hash_shards
from mae_lightning.data.manifest_file import write_manifest

ROOT = Path(mae_lightning.__file__).parents[1]
SHARDS, SAMPLES = 4, 16
TIMEOUT = 5
LIMIT = 30
"""Seconds that no examination takes, whatever is wrong; a machine at leisure needs a fifth."""
COMMON = [
    "--config=quickstart/scratch",
    f"--timeout={TIMEOUT}",
    "--trainer.accelerator=cpu",
    "--run.wandb=off",
    "--data.init_args.val=null",
    "--data.init_args.image_size=8",
    "--data.init_args.global_batch_size=8",
    "--data.init_args.num_workers=2",
    "--model.init_args.encoder={dim: 8, depth: 1, num_heads: 1, patch_size: 4}",
]


@dataclass
class Verdict:
    """What one rank said, and how it ended."""

    code: int | None
    lines: list[str]

    @property
    def red(self) -> list[str]:
        return [line for line in self.lines if line.startswith("FAIL")]

    def of(self, check: str) -> str:
        return next(line for line in self.lines if line[6:].startswith(check))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def environment_of(rank: int, world_size: int, port: int) -> dict[str, str]:
    """As torchrun sets it, but for the store: rank 0 has to hold it."""
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    script = str(Path(__file__).with_name("doctor_ranks.py"))
    with subprocess.Popen(
        [sys.executable, script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


class Ranks:
    """Starts processes of doctor, and reads what they say."""

    def __init__(self, folder: Path, server: subprocess.Popen[str]) -> None:
        self.folder, self.server = folder, server

    def __call__(
        self,
        *arguments: str,
        started: tuple[int, ...] = (0, 1),
        port: int | None = None,
        own: dict[int, list[str]] | None = None,
        sites: dict[int, Path] | None = None,
        file_bytes: int = 0,
    ) -> dict[int, Verdict]:
        """Runs some ranks of two; a test in which they do not end in time fails."""
        port = port or free_port()
        launched = [
            {
                "arguments": [*COMMON, f"--run.dir={self.folder}/runs", *arguments, *(own or {}).get(rank, [])],
                "environment": environment_of(rank, 2, port),
                "out": str(self.folder / f"rank{rank}"),
                "sites": [str((sites or {})[rank])] if rank in (sites or {}) else [],
                "file_bytes": file_bytes,
            }
            for rank in started
        ]
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps({"limit": LIMIT, "ranks": launched}) + "\n")
        self.server.stdin.flush()
        codes = json.loads(self.server.stdout.readline())
        told = {rank: (self.folder / f"rank{rank}").read_text().splitlines() for rank in started}
        assert None not in codes, f"of ranks {started} some hang, {codes}: {told}"
        return {rank: Verdict(code, told[rank]) for rank, code in zip(started, codes, strict=True)}


@pytest.fixture
def ranks(tmp_path: Path, server: subprocess.Popen[str]) -> Ranks:
    return Ranks(tmp_path, server)


def make_data(folder: Path, class_names: tuple[str, ...] = ("ant", "bee")) -> Path:
    """Labelled images in shards, with their manifest."""
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for place in range(shard, SAMPLES, SHARDS):
                image = io.BytesIO()
                np.save(image, np.full((8, 8, 1), place, np.uint8))
                for kind, data in (("npy", image.getvalue()), ("cls", b"%d" % (place % 2))):
                    member = tarfile.TarInfo(f"{place:02}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    names = [f"{shard}.tar" for shard in range(SHARDS)]
    manifest, sums = hash_shards(str(folder), names)
    return write_manifest(
        folder, {"train": manifest}, {"train": sums}, class_names=class_names, num_channels=1, mean=(0.5,), std=(0.2,)
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def served(data: Path) -> Iterator[str]:
    """The same data over http: it can only stream."""
    handler = functools.partial(Quiet, directory=str(data.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/manifest.json"
        server.shutdown()
        thread.join()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A tiny file system, or where mounting is not allowed a folder and a limit on the files in it."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        yield folder, 16 * 1024
        return
    yield folder, 0
    subprocess.run(["umount", str(folder)], check=True)


def check_red(verdicts: dict[int, Verdict], check: str, *parts: str) -> None:
    """Rank 0 has one red line, which is of this check and says this; all ranks end with 1."""
    said = "\n".join(verdicts[0].lines)
    assert len(verdicts[0].red) == 1, said
    line = verdicts[0].red[0]
    assert line[6:].startswith(check), said
    for part in parts:
        assert part in line
    assert {rank: verdict.code for rank, verdict in verdicts.items()} == dict.fromkeys(verdicts, 1)


def test_all_is_well(ranks: Ranks, data: Path) -> None:
    verdicts = ranks(f"--data.init_args.train={data}")
    assert verdicts[0].red == []
    assert {rank: verdict.code for rank, verdict in verdicts.items()} == {0: 0, 1: 0}
    assert verdicts[1].lines == []
    assert "2 ranks met on 1 machine" in verdicts[0].of("rendezvous")
    assert "bus bandwidth" in verdicts[0].of("all-reduce")
    assert "4 shards for 2 ranks x 2 workers: read by offset" in verdicts[0].of("readers")
    assert "8 = 4 images x 2 ranks x accumulation 1; lr" in verdicts[0].of("batch")
    assert "2 classes with names" in verdicts[0].of("labels")


def test_port_taken(ranks: Ranks, data: Path) -> None:
    with socket.create_server(("", 0)) as stranger:
        port = stranger.getsockname()[1]
        verdicts = ranks(f"--data.init_args.train={data}", port=port)
    check_red(verdicts, "rendezvous", f"rank 0: port {port} of ", "taken", "set MASTER_PORT")
    assert len(verdicts[1].lines) == 1
    assert f"rank 1: what answers at 127.0.0.1:{port} is not rank 0" in verdicts[1].red[0]
    assert "set MASTER_PORT" in verdicts[1].red[0]


def test_rank_missing(ranks: Ranks, data: Path) -> None:
    verdicts = ranks(f"--data.init_args.train={data}", started=(0,))
    check_red(verdicts, "rendezvous", f"rank 1 of 2 did not come within {TIMEOUT} s", "MASTER_ADDR")
    assert verdicts[0].of("all-reduce").startswith("skip")


def test_rank_0_missing(ranks: Ranks, data: Path) -> None:
    verdicts = ranks(f"--data.init_args.train={data}", started=(1,))
    assert verdicts[1].code == 1
    assert len(verdicts[1].red) == 1
    assert "rank 1: rank 0 is missing: nobody listens at 127.0.0.1:" in verdicts[1].red[0]
    assert "start rank 0" in verdicts[1].red[0]


def test_shard_missing_on_one_rank(ranks: Ranks, data: Path, tmp_path: Path) -> None:
    """As on a machine whose copy is not whole."""
    copy = tmp_path / "copy"
    shutil.copytree(data.parent, copy)
    (copy / "2.tar").unlink()
    own = {1: [f"--data.init_args.train={copy / 'manifest.json'}"]}
    verdicts = ranks(f"--data.init_args.train={data}", own=own)
    check_red(verdicts, "shards", f"rank 1: no shard at {copy / '2.tar'}", "put it there")


def test_remote_shard_missing(ranks: Ranks, served: str, data: Path) -> None:
    (data.parent / "3.tar").unlink()
    verdicts = ranks(f"--data.init_args.train={served}")
    check_red(verdicts, "shards", "ranks 0-1: ", "3.tar", "HTTP 404")


def test_remote_shard_of_another_size(ranks: Ranks, served: str, data: Path) -> None:
    """Each rank asks for its share: the fourth shard is rank 1's."""
    with (data.parent / "3.tar").open("ab") as shard:
        shard.write(bytes(512))
    size = (data.parent / "3.tar").stat().st_size
    verdicts = ranks(f"--data.init_args.train={served}")
    check_red(verdicts, "shards", "rank 1: ", f"3.tar has {size} bytes, and the manifest says {size - 512}; put")


def test_too_few_shards_to_stream(ranks: Ranks, served: str) -> None:
    verdicts = ranks(f"--data.init_args.train={served}", "--data.init_args.num_workers=4")
    check_red(verdicts, "readers", "4 shards for 2 ranks x 4 workers", "too few, ranks 0 to 1", "pack 8 shards or more")


def test_wrong_label_map(ranks: Ranks, tmp_path: Path) -> None:
    manifest = make_data(tmp_path / "one", class_names=("ant",))
    verdicts = ranks(f"--data.init_args.train={manifest}")
    check_red(verdicts, "labels", "ranks 0-1: ", "has label 1, and the classes are 0 to 0", "class_names")


def test_another_label_map_on_one_rank(ranks: Ranks, data: Path, tmp_path: Path) -> None:
    other = make_data(tmp_path / "other", class_names=("bee", "ant"))
    verdicts = ranks(f"--data.init_args.train={data}", own={1: [f"--data.init_args.train={other}"]})
    check_red(verdicts, "labels", "class names is ", " on rank 0, ", " on rank 1; give all ranks the same")


def test_full_disk(ranks: Ranks, data: Path, full_disk: tuple[Path, int]) -> None:
    folder, file_bytes = full_disk
    verdicts = ranks(f"--data.init_args.train={data}", f"--run.dir={folder}", file_bytes=file_bytes)
    check_red(verdicts, "disk", "rank 0: ", "checkpoint")


def test_different_versions(ranks: Ranks, data: Path, tmp_path: Path) -> None:
    info = tmp_path / "site" / "timm-0.4.12.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.4.12\n")
    verdicts = ranks(f"--data.init_args.train={data}", sites={1: info.parent})
    check_red(verdicts, "versions", "timm is ", " on rank 0, 0.4.12 on rank 1", "give all ranks the same")


@pytest.mark.slow
def test_under_torchrun(data: Path, tmp_path: Path) -> None:
    """The program itself, where torchrun holds the store."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "mae_lightning", "doctor", *COMMON, "--timeout=30", f"--data.init_args.train={data}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks met on 1 machine" in done.stdout
    assert "FAIL" not in done.stdout
