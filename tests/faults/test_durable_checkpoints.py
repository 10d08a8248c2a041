"""R2 of the promises: whatever happens while a checkpoint is written or after, one whole checkpoint is read back."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mae_lightning.strategies import durable
from mae_lightning.strategies.durable import DurableCheckpointIO, is_whole, previous_of, take_name

KILLER = """
import json, os, pathlib, random, signal, sys, time, torch
from mae_lightning.strategies.durable import DurableCheckpointIO, is_whole
torch.set_num_threads(1)
path, rounds, chance, io = pathlib.Path(sys.argv[1]), int(sys.argv[2]), random.Random(1), DurableCheckpointIO()
announced, survived, torn, step = path.with_name("announced"), 0, 0, 0
for _ in range(rounds):
    child = os.fork()
    if child == 0:
        for step in range(step + 1, 1_000_000):
            io.save_checkpoint({"step": step, "weights": torch.full((300_000,), float(step))}, path)
            announced.write_text(str(step))
    started = announced.stat().st_mtime_ns if announced.exists() else 0
    while not announced.exists() or announced.stat().st_mtime_ns == started:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    torn += not is_whole(path)
    step = io.load_checkpoint(path)["step"]
    survived += step >= int(announced.read_text() or 0)
print(json.dumps([survived, torn]))
"""


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((5_000,), float(step))}


def saved(path: Path, *steps: int) -> DurableCheckpointIO:
    io = DurableCheckpointIO()
    for step in steps:
        io.save_checkpoint(state(step), path)
    return io


def test_reads_back_what_was_written(tmp_path):
    io = saved(tmp_path / "last.ckpt", 1)
    read = io.load_checkpoint(tmp_path / "last.ckpt")
    assert read["step"] == 1
    assert torch.equal(read["weights"], state(1)["weights"])


def test_two_are_kept_and_nothing_else(tmp_path):
    saved(tmp_path / "last.ckpt", 1, 2, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.previous", "last.ckpt.sha256"]
    assert torch.load(previous_of(tmp_path / "last.ckpt"))["step"] == 2


def test_100_flipped_bits_are_all_found(tmp_path):
    path = tmp_path / "last.ckpt"
    io = saved(path, 1, 2)
    whole, chance, found = path.read_bytes(), random.Random(0), 0
    for _ in range(100):
        place, bit = chance.randrange(len(whole)), 1 << chance.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.warns(UserWarning, match=r"last\.ckpt is damaged or missing; going on from .*last\.ckpt\.previous"):
            found += io.load_checkpoint(path)["step"] == 1
    assert found == 100


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_falls_back(tmp_path, share):
    path = tmp_path / "last.ckpt"
    io = saved(path, 1, 2)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.warns(UserWarning, match="damaged"):
        assert io.load_checkpoint(path)["step"] == 1


def test_a_missing_file_falls_back(tmp_path):
    path = tmp_path / "last.ckpt"
    io = saved(path, 1, 2)
    path.unlink()
    with pytest.warns(UserWarning, match="missing"):
        assert io.load_checkpoint(path)["step"] == 1


def test_two_damaged_files_are_both_named(tmp_path):
    path = tmp_path / "last.ckpt"
    io = saved(path, 1, 2)
    for file in (path, previous_of(path)):
        file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"last\.ckpt and .*last\.ckpt\.previous"):
        io.load_checkpoint(path)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("before", [(1,), (1, 2)])
@pytest.mark.parametrize("kills", [1, 4])
def test_kills_in_a_row_leave_whole_what_was_whole(tmp_path, monkeypatch, named, before, kills):
    """Killed with the digest written and the name not taken, or the name taken and the digest before still there."""
    path = tmp_path / "last.ckpt"

    def die(temporary: Path, target: Path) -> None:
        if named:
            take_name(temporary, target)
        raise KeyboardInterrupt

    saved(path, *before)
    with monkeypatch.context() as killed:
        killed.setattr(durable, "take_name", die)
        for step in range(3, 3 + kills):
            with pytest.raises(KeyboardInterrupt):
                saved(path, step)
            assert all(is_whole(place, path) for place in (path, previous_of(path)) if place.exists())
    io = saved(path, 7)
    assert io.load_checkpoint(path)["step"] == 7
    assert is_whole(previous_of(path), path)
    assert len((tmp_path / "last.ckpt.sha256").read_text().split()) == 2


def test_objects_are_refused(tmp_path):
    torch.save({"callable": os.system}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        DurableCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


def kills(folder: Path, rounds: int) -> tuple[int, int]:
    """Kills a saving process at seeded moments: how often the last finished state was read, how often torn."""
    environment = os.environ | {"TMPDIR": "/dev/shm"}  # another file system, where renames would not be atomic
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(folder / "last.ckpt"), str(rounds)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    survived, torn = json.loads(result.stdout.splitlines()[-1])
    return survived, torn


def test_kills_during_saves(tmp_path):
    assert kills(tmp_path, rounds=10) == (10, 0)


@pytest.mark.slow
def test_100_kills_during_saves(tmp_path):
    assert kills(tmp_path, rounds=100) == (100, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny file system needs root")
def test_a_full_disk_leaves_the_last_one_whole(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = tmp_path / "last.ckpt"
        io = DurableCheckpointIO()
        io.save_checkpoint(state(1), path)
        with pytest.raises(OSError, match=r"last\.ckpt could not be written: .*; the one before it is whole"):
            io.save_checkpoint({"step": 2, "weights": torch.rand(1_000_000)}, path)
        assert io.load_checkpoint(path)["step"] == 1
        assert not list(tmp_path.glob(".*"))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
