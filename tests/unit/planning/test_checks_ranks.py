"""What launchers say, what trainers ask for, and what rank 0 makes of the reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mae_lightning.data import ShardDataModule
from mae_lightning.planning.checks import Finding
from mae_lightning.planning.checks.ranks import (
    Launch,
    check_launch,
    devices_of,
    is_sharded,
    planned_local_ranks,
    planned_ranks,
    read_launch,
    reading_ranks,
)
from mae_lightning.planning.doctor import Line, Report, attendance, judge, named, shown
from mae_lightning.planning.preflight import kept_by, preflight

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-0",
    "MASTER_PORT": "29400",
}


def test_launch_by_torchrun() -> None:
    assert read_launch(TORCHRUN) == Launch("torchrun", 3, 4, 1, 2, "node-0", 29400)
    assert read_launch(TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).has_store


def test_launch_by_slurm() -> None:
    environment = {
        "SLURM_PROCID": "5",
        "SLURM_NTASKS": "8",
        "SLURM_LOCALID": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "node[07-08]",
        "SLURM_JOB_ID": "123456",
    }
    assert read_launch(environment) == Launch("SLURM", 5, 8, 1, 4, "node07", 18456)
    assert read_launch(environment | {"SLURM_JOB_NAME": "interactive"}) == Launch()
    assert read_launch(environment | {"MASTER_ADDR": "other", "MASTER_PORT": "7"}).port == 7


def test_launch_by_lightning() -> None:
    environment = {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0"}
    assert read_launch(environment) == Launch("Lightning", 1, 2, 1, 2)


def test_launch_by_hand() -> None:
    assert read_launch({}) == Launch()


def test_variable_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="WORLD_SIZE='two' must be a whole number"):
        read_launch({"RANK": "0", "WORLD_SIZE": "two"})
    with pytest.raises(ValueError, match="SLURM_NNODES='0' must be a whole number of at least 1"):
        read_launch({"SLURM_PROCID": "0", "SLURM_NODELIST": "a", "SLURM_NNODES": "0"})


@pytest.mark.parametrize(
    ("asked", "devices"),
    [(4, 4), ("4", 4), ("0,2,3", 3), ([1, 2], 2), ("auto", 1), (None, 1), (-1, 1)],
)
def test_devices(asked: Any, devices: int) -> None:
    assert devices_of({"devices": asked, "accelerator": "cpu"}) == devices


def test_ranks_of_a_run() -> None:
    settings = {"devices": 8, "num_nodes": 2, "accelerator": "cpu"}
    assert planned_ranks(settings, Launch()) == 16
    assert planned_local_ranks(settings, Launch()) == 8
    assert planned_ranks(settings, read_launch(TORCHRUN)) == 4
    assert planned_local_ranks(settings, read_launch(TORCHRUN)) == 2
    tensor_parallel = {"class_path": "ModelParallelStrategy", "init_args": {"tensor_parallel_size": 2}}
    assert reading_ranks({**settings, "strategy": tensor_parallel}, Launch()) == 8
    assert reading_ranks({**settings, "strategy": "ddp"}, Launch()) == 16


@pytest.mark.parametrize(
    ("strategy", "sharded"),
    [
        ("auto", False),
        ("fsdp", True),
        ({"class_path": "lightning.pytorch.strategies.DDPStrategy"}, False),
        ({"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}, True),
        ({"class_path": "mae_lightning.strategies.FullySharded", "init_args": {"checkpoint": "full"}}, False),
    ],
)
def test_who_writes(strategy: Any, sharded: bool) -> None:
    assert is_sharded({"strategy": strategy}) is sharded


def test_launch_and_trainer_agree() -> None:
    launch = read_launch(TORCHRUN)
    assert check_launch({"devices": 2, "num_nodes": 2}, launch).ok
    red = check_launch({"devices": 8, "num_nodes": 2}, launch)
    assert red.ok is False
    assert "torchrun started 4 ranks, and the trainer asks for devices 8 x nodes 2" in red.text
    assert "--trainer.devices" in red.cure
    alone = check_launch({"devices": 8, "num_nodes": 2}, Launch())
    assert alone.ok
    assert "the run has 16 ranks; start doctor as the run" in alone.text


# ---------------------------------------------------------------- judging


def report(*findings: Finding, clock: float = 0.0, **equal: dict[str, str]) -> Report:
    return Report("host", findings, equal, clock)


FINE = Finding("disk", True, "1 TB free")
FULL = Finding("disk", False, "no room", "free some")


def line_of(reports: dict[int, Report], check: str) -> Line:
    (line,) = [line for line in judge(reports, 4) if line.check == check]
    return line


def test_report_survives_its_journey() -> None:
    sent = report(FINE, FULL, clock=1.5, versions={"torch": "2.15"})
    assert Report.from_json(sent.to_json()) == sent


def test_all_ranks_agree() -> None:
    assert line_of({rank: report(FINE) for rank in range(4)}, "disk") == Line("disk", True, "1 TB free")


def test_red_line_names_ranks_and_cure() -> None:
    reports = {0: report(FINE), 1: report(FULL), 2: report(FULL), 3: report(Finding("disk", False, "gone", "mount it"))}
    assert line_of(reports, "disk").text == "ranks 1-2: no room; rank 3: gone; free some; mount it"


def test_one_rank_has_no_name() -> None:
    (line,) = judge({0: report(FULL)}, 1)
    assert line == Line("disk", False, "no room; free some")


def test_what_was_not_looked_at_is_no_failure() -> None:
    skipped = Finding("disk", None, "needs the data")
    assert line_of({0: report(FINE), 1: report(skipped)}, "disk") == Line("disk", None, "needs the data")
    assert line_of({0: report(FULL), 1: report(skipped)}, "disk").ok is False


def test_versions_that_differ() -> None:
    ok = Finding("versions", True, "torch 2.15")
    reports = {rank: report(ok, versions={"torch": "2.15", "timm": "1.0"}) for rank in range(4)}
    assert line_of(reports, "versions").ok
    reports[2] = report(ok, versions={"torch": "2.11", "timm": "1.0"})
    line = line_of(reports, "versions")
    assert line.ok is False
    assert line.text.startswith("torch is 2.15 on ranks 0-1, 3, 2.11 on rank 2; give all ranks the same")


def test_clocks() -> None:
    reports = {0: report(clock=100.0), 1: report(clock=100.5)}
    assert line_of(reports, "clocks") == Line("clocks", True, "within 0.50 s")
    reports[3] = report(clock=90.0)
    line = line_of(reports, "clocks")
    assert line.ok is False
    assert line.text.startswith("rank 3: -10.0 s from rank 0")
    assert "chronyc" in line.text


def test_attendance() -> None:
    reports = {0: report(), 1: report()}
    assert attendance(2, [0, 1], reports, 30.0).text == "2 ranks met on 1 machine"
    missing = attendance(6, [0, 1, 3], reports, 30.0)
    assert missing.text == "ranks 2, 4-5 of 6 did not come within 30 s"
    silent = attendance(3, [0, 1, 2], reports, 30.0)
    assert silent.ok is False
    assert silent.text == "rank 2 came, and told nothing within 30 s"


def test_names_of_ranks() -> None:
    assert named([4]) == "rank 4"
    assert named([0, 1, 2, 5]) == "ranks 0-2, 5"


def test_lines_as_shown() -> None:
    lines = [Line("disk", True, "room"), Line("rendezvous", False, "no"), Line("sum", None, "later")]
    assert shown(lines) == ["ok    disk        room", "FAIL  rendezvous  no", "skip  sum         later"]
    assert shown(lines, coloured=True)[1].startswith("\x1b[31mFAIL\x1b[0m  rendezvous")


# ---------------------------------------------------------------- before a trainer is built


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the free bytes of every disk."""

    def set_free(size: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": size}))

    return set_free


def test_preflight(tmp_path: Path, free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank is named where there are several, and only the one that writes needs the disk."""
    model, trainer = nn.Linear(100, 100), {"devices": 1, "accelerator": "cpu"}
    free(10**9)
    preflight(model, None, trainer, tmp_path)
    free(10**5)
    with pytest.raises(ValueError, match=r"^100 kB free in .*; free some, or set --run.dir"):
        preflight(model, None, trainer, tmp_path)
    preflight(model, None, {**trainer, "fast_dev_run": True}, tmp_path)
    with pytest.raises(ValueError, match=r"^rank 0: 100 kB free in "):
        preflight(model, None, {**trainer, "devices": 2}, tmp_path)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    preflight(model, None, trainer, tmp_path)
    with pytest.raises(ValueError, match=r"^100 kB free in "):
        preflight(model, None, {**trainer, "strategy": "fsdp"}, tmp_path)


def test_preflight_counts_several_crops_of_each_sample(tmp_path: Path) -> None:
    """5,000 images of two crops each fill a batch of 6,000, and not one of 10,002."""
    model, trainer = nn.Linear(1, 1), {"devices": 1, "accelerator": "cpu", "fast_dev_run": True}
    fitting, too_large = (
        ShardDataModule(
            "fashion_mnist:train", val=None, image_size=28, global_batch_size=size, repeats=2, num_workers=0
        )
        for size in (6000, 10_002)
    )
    preflight(model, fitting, trainer, tmp_path)
    with pytest.raises(ValueError, match="5000 training samples of 2 crops each do not fill"):
        preflight(model, too_large, trainer, tmp_path)


def test_preflight_counts_the_largest_size_of_training(tmp_path: Path, free: Callable[[int], None]) -> None:
    """A worker's 3 batches of 64 single-channel images of 28 x 28 need 150 kB, of 56 x 56 they need 602 kB."""
    model, trainer = nn.Linear(1, 1), {"devices": 1, "accelerator": "cpu", "fast_dev_run": True}
    own, growing = (
        ShardDataModule(
            "fashion_mnist:train",
            val=None,
            image_size=28,
            image_size_by_epoch=sizes,
            global_batch_size=64,
            num_workers=1,
        )
        for sizes in (None, {0: 56, 1: 14})
    )
    free(10**5 * 3)
    preflight(model, own, trainer, tmp_path)
    with pytest.raises(ValueError, match=r"300 kB free, 1 rank x 1 worker need about 602 kB"):
        preflight(model, growing, trainer, tmp_path)


def test_more_copies_need_more_disk(tmp_path: Path, free: Callable[[int], None]) -> None:
    model, trainer = nn.Linear(1000, 1000), {"accelerator": "cpu", "max_epochs": 10}
    one = 3 * 4 * 1001 * 1000
    free(3 * one + 2**20)
    preflight(model, None, trainer, tmp_path)
    average = {"class_path": "mae_lightning.callbacks.ema.WeightEMA", "init_args": {"decay": 0.9}}
    with pytest.raises(ValueError, match=r"3 checkpoints of 16 MB"):
        preflight(model, None, {**trainer, "callbacks": [average]}, tmp_path)
    best = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_top_k": 2}}
    with pytest.raises(ValueError, match=r"5 checkpoints of 12 MB"):
        preflight(model, None, {**trainer, "callbacks": [best]}, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({}, 1),
        ({"save_top_k": 3, "save_last": True}, 4),
        ({"save_top_k": -1}, 10),
        ({"save_top_k": -1, "every_n_epochs": 4}, 3),
    ],
)
def test_checkpoints_of_a_callback(arguments: dict[str, Any], kept: int) -> None:
    assert kept_by("ModelCheckpoint", arguments, {"max_epochs": 10}) == kept
    assert kept_by("LearningRateMonitor", arguments, {"max_epochs": 10}) == 0
