"""Checkpoints in shards: read whole, and nothing in them runs."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter, save

from mae_lightning.strategies.durable import (
    DIGESTS,
    DurableCheckpointIO,
    digest_of,
    newest_whole,
    previous_of,
    seal_folder,
    take_name,
    temporary_of,
)
from mae_lightning.weights import is_sharded, read_checkpoint
from mae_lightning.weights.sharded import REST, TABLE

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
WEIGHT = torch.arange(6.0).reshape(2, 3)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in shards of one process."""
    path = tmp_path / "last.ckpt"
    optimizer = {
        "state": {"b": {"step": torch.tensor(2.0)}, "a": {"step": torch.tensor(1.0)}},
        "param_groups": [{"params": ["b"], "lr": 0.1}, {"params": ["a"], "lr": 0.2}],
    }
    shards = {"state_dict": {"a": WEIGHT}, "optimizer_0": optimizer}
    save(shards, storage_writer=FileSystemWriter(path), no_dist=True)
    torch.save({"global_step": 7}, path / REST)
    seal(path)
    return path


def seal(path: Path) -> None:
    seal_folder(path, {file.name: digest_of(file) for file in path.iterdir() if file.name != DIGESTS})


def test_read_as_one_file(folder: Path) -> None:
    assert is_sharded(folder)
    content = read_checkpoint(folder)
    assert content["global_step"] == 7
    assert torch.equal(content["state_dict"]["a"], WEIGHT)
    state = content["optimizer_states"][0]
    assert [group["params"] for group in state["param_groups"]] == [[0], [1]]
    assert [group["lr"] for group in state["param_groups"]] == [0.1, 0.2]
    assert {number: float(value["step"]) for number, value in state["state"].items()} == {0: 2, 1: 1}


@pytest.mark.parametrize("part", [TABLE, REST, "__0_0.distcp"])
def test_damage_is_found(folder: Path, part: str) -> None:
    content = bytearray((folder / part).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / part).write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint damaged"):
        newest_whole(folder)


@pytest.mark.parametrize("part", [TABLE, REST])
def test_a_folder_without_its_tables_is_no_checkpoint(folder: Path, part: str) -> None:
    (folder / part).unlink()
    assert newest_whole(folder) is None


@pytest.mark.parametrize("part", ["__0_0.distcp", DIGESTS])
def test_a_folder_that_was_not_finished_is_not_whole(folder: Path, part: str) -> None:
    (folder / part).unlink()
    with pytest.raises(ValueError, match="checkpoint damaged"):
        newest_whole(folder)


def test_the_one_before_is_kept_whatever_its_kind(folder: Path, tmp_path: Path) -> None:
    """A file after a folder, a folder after a file, a folder after a folder: both are whole at every moment."""
    io_ = DurableCheckpointIO()
    io_.save_checkpoint({"global_step": 8}, folder)
    assert folder.is_file()
    assert is_sharded(previous_of(folder))
    for step in (9, 10, 11):
        new = temporary_of(folder)
        save({"state_dict": {"a": WEIGHT}}, storage_writer=FileSystemWriter(new), no_dist=True)
        torch.save({"global_step": step}, new / REST)
        seal(new)
        take_name(new, folder)
        assert read_checkpoint(folder)["global_step"] == step
        assert read_checkpoint(previous_of(folder))["global_step"] == step - 1
    (folder / REST).write_bytes(b"")
    with pytest.warns(UserWarning, match="going on from the one before it"):
        assert newest_whole(folder) == previous_of(folder)
    io_.remove_checkpoint(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_table_runs_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (folder / TABLE).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ValueError, match=r"names posix\.mkdir, which no checkpoint needs"):
        read_checkpoint(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_hostile_rest_runs_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Bomb(tmp_path / "exploded"), folder / REST)
    with pytest.raises(ValueError, match="holds more than plain values"):
        read_checkpoint(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_hostile_entry_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch pickles what is no tensor, and unpickles it without restriction."""
    path = tmp_path / "last.ckpt"
    save({"state_dict": {"a": Bomb(tmp_path / "exploded")}}, storage_writer=FileSystemWriter(path), no_dist=True)
    torch.save({}, path / REST)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ValueError, match="holds more than plain values"):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()
    explosive = io.BytesIO()
    torch.save(Bomb(tmp_path / "exploded"), explosive)
    explosive.seek(0)
    torch.load(explosive, weights_only=False)
    assert (tmp_path / "exploded").exists()  # the bomb works
