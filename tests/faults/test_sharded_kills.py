"""R2 for checkpoints in shards: two processes killed while they save one leave one that is whole.

Also what a killed process leaves behind, whatever the kind of checkpoint.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mae_lightning.strategies.durable import DurableCheckpointIO, remove_leftovers

KILLER = """
import itertools, json, os, pathlib, random, signal, sys, time
import torch
from lightning import LightningModule
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.fsdp import fully_shard
from mae_lightning.strategies import FullySharded
from mae_lightning.strategies.durable import is_whole, newest_whole
from mae_lightning.weights import read_checkpoint

torch.set_num_threads(1)
path, rounds, chance = pathlib.Path(sys.argv[1]), int(sys.argv[2]), random.Random(2)
announced = path.with_name("announced")


def save_until_killed(rank, step, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0")
    strategy = FullySharded("sharded")
    strategy.accelerator, strategy.cluster_environment = CPUAccelerator(), LightningEnvironment()
    strategy.parallel_devices, strategy._lightning_module = [torch.device("cpu")] * 2, LightningModule()
    strategy.setup_environment()
    model = torch.nn.Linear(400, 400)
    fully_shard(model, mesh=strategy.device_mesh["data_parallel"])
    for step in itertools.count(step + 1):
        for weight in model.parameters():
            torch.nn.init.constant_(weight, float(step))
        strategy.save_checkpoint({"state_dict": get_model_state_dict(model), "global_step": step}, path)
        if rank == 0:
            announced.write_text(str(step))


def fork(*arguments):
    child = os.fork()
    if child == 0:
        try:
            save_until_killed(*arguments)
        finally:
            os._exit(1)
    return child


survived = torn = step = 0
for number in range(rounds):
    announced.write_text(str(step))
    ranks = [fork(rank, step, int(sys.argv[3]) + number) for rank in range(2)]
    while announced.read_text() in ("", str(step)):
        assert all(os.waitpid(rank, os.WNOHANG)[0] == 0 for rank in ranks), "a rank ended by itself"
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.3))
    chance.shuffle(ranks)
    for rank in ranks:
        os.kill(rank, signal.SIGKILL)
        time.sleep(chance.choice([0, 0.02]))
    for rank in ranks:
        os.waitpid(rank, 0)
    found = newest_whole(path)
    torn += not is_whole(found)
    content = read_checkpoint(found)
    weights = {float(value) for weight in content["state_dict"].values() for value in weight.unique()}
    torn += weights != {float(content["global_step"])}
    step = content["global_step"]
    survived += step >= int(announced.read_text() or 0)
print(json.dumps([survived, torn]))
"""


def kills(folder: Path, rounds: int, port: int) -> tuple[int, int]:
    """Kills two saving processes at seeded moments: how often the last finished state was read, how often torn."""
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(folder / "last.ckpt"), str(rounds), str(port)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    survived, torn = json.loads(result.stdout.splitlines()[-1])
    return survived, torn


def test_kills_during_saves_of_shards(tmp_path: Path) -> None:
    assert kills(tmp_path, rounds=2, port=29710) == (2, 0)


@pytest.mark.slow
def test_20_kills_during_saves_of_shards(tmp_path: Path) -> None:
    assert kills(tmp_path, rounds=20, port=29720) == (20, 0)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        DurableCheckpointIO().save_checkpoint({"step": step, "weights": torch.zeros(3)}, path)
    kept = {"notes.writing", ".hidden", ".writing", ".cache"}
    for name in kept - {".cache"}:
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    kept |= {file.name for file in tmp_path.iterdir()}
    for name in (".last.ckpt.sha256.writing", ".last.ckpt.previous.linking", ".metrics.csv.writing"):
        (tmp_path / name).touch()
    (tmp_path / ".last.ckpt.writing").mkdir()
    (tmp_path / ".last.ckpt.writing/__0_0.distcp").touch()
    remove_leftovers(tmp_path, tmp_path / "nowhere")
    assert {file.name for file in tmp_path.iterdir()} == kept
    assert DurableCheckpointIO().load_checkpoint(path)["step"] == 2
