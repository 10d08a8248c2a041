"""What launchers say of the processes that they started."""

from typing import Any

import pytest

from mae_lightning.cli.launched import launched_topology, with_launched_topology

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NNODES": "2",
    "SLURM_JOB_NAME": "mae",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        (TORCHRUN, {"num_nodes": 2, "devices": 8}),
        (SLURM, {"num_nodes": 2, "devices": 4}),
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, {}),
    ],
)
def test_topology(environment: dict[str, str], expected: dict[str, Any]) -> None:
    assert launched_topology(environment) == expected


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE='0'"),
        (SLURM | {"SLURM_NTASKS": "8(x2)"}, r"SLURM_NTASKS='8\(x2\)'"),
        (SLURM | {"SLURM_NNODES": "0"}, "SLURM_NNODES='0'"),
    ],
)
def test_odd_numbers(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=f"{said} must be a whole number of at least 1"):
        launched_topology(environment)


def test_uneven_nodes() -> None:
    with pytest.raises(ValueError, match="7 tasks on 2 nodes"):
        launched_topology(SLURM | {"SLURM_NTASKS": "7"})


@pytest.mark.parametrize("asked", [{}, {"devices": "auto", "num_nodes": 1}, {"devices": [0, 1, 2, 3, 4, 5, 6, 7]}])
def test_what_is_open_is_filled(asked: dict[str, Any]) -> None:
    merged = with_launched_topology(asked | {"precision": "32-true"}, TORCHRUN)
    assert merged["num_nodes"] == 2
    assert merged["devices"] in (8, list(range(8)))
    assert merged["precision"] == "32-true"


@pytest.mark.parametrize(("name", "value"), [("devices", 4), ("num_nodes", 3)])
def test_what_contradicts_is_an_error(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"trainer.{name} is {value}, but the launcher started"):
        with_launched_topology({name: value}, TORCHRUN)


def test_no_launcher_changes_nothing() -> None:
    assert with_launched_topology({"devices": 4, "num_nodes": 1}, {}) == {"devices": 4, "num_nodes": 1}


def test_tasks_that_no_node_was_told_of_are_refused() -> None:
    environment = {name: value for name, value in SLURM.items() if name != "SLURM_NTASKS_PER_NODE"}
    with pytest.raises(ValueError, match="--ntasks=8; say how many on a node instead: --ntasks-per-node"):
        launched_topology(environment)
