"""Two nodes on one machine: two network namespaces joined by a cable, torchrun in each, DDP and FSDP2 over gloo."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from mae_lightning.callbacks.preemption import MARKER
from mae_lightning.strategies.durable import newest_whole
from mae_lightning.weights import read_checkpoint

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.211.7.1", "10.211.7.2")
PORT = 29511
RUN = [
    "--config=quickstart/pretrain",
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.warmup_epochs=0",
    "--data.init_args.global_batch_size=50",
    "--data.init_args.num_workers=0",
    "--run.name=run",
    "--run.wandb=off",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.max_epochs=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks=in_run.SameWeights",
]
STEPS = 200


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[str]]:
    """Names of two namespaces that reach each other and nothing else."""
    names = [f"mae{os.getpid()}{side}" for side in "ab"]
    ends = [f"v{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "link", "set", end, "name", "veth0")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "veth0")
            ip("-n", name, "link", "set", "veth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        remove(names)
        pytest.skip(f"network namespaces are not allowed here: {getattr(error, 'stderr', '') or error}")
    yield names
    remove(names)


def remove(names: Sequence[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def start(folder: Path, nodes: Sequence[str], options: Sequence[str]) -> list[subprocess.Popen[str]]:
    """The command of the README on each node: two nodes, one process each."""
    launched = []
    for rank, node in enumerate(nodes):
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "veth0",
        }
        command = [
            *("ip", "netns", "exec", node, sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1"),
            *(f"--master-addr={ADDRESSES[0]}", f"--master-port={PORT}"),
            *("-m", "mae_lightning", "--allow-import", "in_run", "fit", *options, *RUN),
        ]
        with (folder / f"node{rank}.log").open("a") as log:
            launched.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True))
    return launched


def wait_for_steps(folder: Path) -> None:
    """Until the first epoch is saved, and the second has begun."""
    for _ in range(240):
        if (folder / "runs/run/checkpoints/last.ckpt").exists():
            return
        time.sleep(0.5)
    raise AssertionError((folder / "node0.log").read_text()[:6000])


def kill_all(nodes: Sequence[str]) -> None:
    """As if their power had gone."""
    for node in nodes:
        running = subprocess.run(["ip", "netns", "pids", node], capture_output=True, text=True, check=True).stdout
        for pid in running.split():
            os.kill(int(pid), signal.SIGKILL)


def end(nodes: Sequence[str], launched: Sequence[subprocess.Popen[str]]) -> None:
    kill_all(nodes)
    for process in launched:
        process.wait()


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param("trainer/ddp", marks=pytest.mark.slow),
        "trainer/fsdp",
    ],
)
def test_a_node_dies_and_the_run_goes_on(strategy: str, nodes: list[str], tmp_path: Path) -> None:
    """Training, validation, checkpoint; one node is killed; started again, both go on to the same weights."""
    options = [f"--config={strategy}"]
    if strategy == "trainer/fsdp":
        options.append("--trainer.strategy.init_args.checkpoint=sharded")
    first = start(tmp_path, nodes, options)
    try:
        wait_for_steps(tmp_path)
        kill_all(nodes[1:])
        first[0].wait(timeout=120)  # the other node notices
        assert first[0].returncode != 0
    finally:
        end(nodes, first)
    second = start(tmp_path, nodes, options)
    try:
        for process in second:
            assert process.wait(timeout=240) == 0, (tmp_path / "node0.log").read_text()[:6000]
    finally:
        end(nodes, second)
    log = (tmp_path / "node0.log").read_text()
    assert re.search(r"goes on after 1 epochs, \d+ steps", log), log[-2000:]
    assert "2 x cpu" in log
    assert "the same weights on 2 ranks" in log
    assert not (tmp_path / "runs/run" / MARKER).exists()
    checkpoint = newest_whole(tmp_path / "runs/run/checkpoints/last.ckpt")
    assert checkpoint is not None
    content = read_checkpoint(checkpoint)
    assert content["global_step"] == STEPS
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
