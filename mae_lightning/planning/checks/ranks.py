"""Which rank this process is, as its launcher says, and how many ranks the trainer's settings ask for."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from mae_lightning.planning.checks.finding import Finding, counted

DEFAULT_PORT = 29500
SLURM_PORTS = 15000
"""Where Lightning's ports begin under SLURM: the last four digits of the job's number are added."""


@dataclass(frozen=True)
class Launch:
    """This process among those of a launch.

    Attributes:
        by: The launcher: ``torchrun`` (or whatever sets the same variables), ``SLURM``, ``Lightning``, or ``hand``.
        rank: Of `world_size`.
        world_size: Processes of the launch.
        local_rank: Of `local_world_size`.
        local_world_size: Processes on this machine.
        address: Where rank 0 is, or the launcher's own store.
        port: Likewise.
        has_store: Whether the launcher holds the store, so that rank 0 need not.
    """

    by: str = "hand"
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    has_store: bool = False


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """The launch as the environment tells it.

    Raises:
        ValueError: A variable that counts is no whole number, or too small.
    """
    if {"RANK", "WORLD_SIZE"} <= environment.keys():
        return _torchrun(environment)
    if is_slurm(environment):
        return _slurm(environment)
    if {"LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        return _lightning(environment)
    return Launch()


def is_slurm(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process, for more than an interactive shell."""
    return "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def _torchrun(environment: Mapping[str, str]) -> Launch:
    world_size = whole_number(environment, "WORLD_SIZE", 1, 1)
    return Launch(
        "torchrun",
        whole_number(environment, "RANK", 0),
        world_size,
        whole_number(environment, "LOCAL_RANK", 0),
        whole_number(environment, "LOCAL_WORLD_SIZE", 1, 1),
        environment.get("MASTER_ADDR", "127.0.0.1"),
        whole_number(environment, "MASTER_PORT", DEFAULT_PORT),
        environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _slurm(environment: Mapping[str, str]) -> Launch:
    nodes = environment.get("SLURM_NODELIST") or environment.get("SLURM_JOB_NODELIST", "127.0.0.1")
    world_size = whole_number(environment, "SLURM_NTASKS", 1, 1)
    return Launch(
        "SLURM",
        whole_number(environment, "SLURM_PROCID", 0),
        world_size,
        whole_number(environment, "SLURM_LOCALID", 0),
        max(1, world_size // whole_number(environment, "SLURM_NNODES", 1, 1)),
        environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
        whole_number(environment, "MASTER_PORT", SLURM_PORTS + whole_number(environment, "SLURM_JOB_ID", 0) % 10_000),
    )


def _lightning(environment: Mapping[str, str]) -> Launch:
    world_size = whole_number(environment, "WORLD_SIZE", 1, 1)
    local_rank, node = whole_number(environment, "LOCAL_RANK", 0), whole_number(environment, "NODE_RANK", 0)
    local_world_size = whole_number(environment, "LOCAL_WORLD_SIZE", world_size, 1)
    rank = node * local_world_size + local_rank
    return Launch("Lightning", rank, world_size, local_rank, local_world_size)


def whole_number(environment: Mapping[str, str], name: str, default: int, least: int = 0) -> int:
    """What a variable says, or the default where it is missing or empty.

    Raises:
        ValueError: It is no whole number from `least` on.
    """
    text = environment.get(name, "") or str(default)
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"environment variable {name}={text!r} must be a whole number of at least {least}")
    return int(text)


# ---------------------------------------------------------------- what the trainer asks for


def accelerator_of(settings: Mapping[str, Any]) -> str:
    """``cuda`` or ``cpu`` or another accelerator's name, once it is known what is there."""
    asked = str(settings.get("accelerator") or "auto").lower()
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda" if asked == "gpu" else asked


def devices_of(settings: Mapping[str, Any]) -> int:
    """Devices on each machine, as Lightning counts them.

    Raises:
        ValueError: There are none.
    """
    count = _counted_devices(settings)
    if count < 1:
        raise ValueError(f"trainer.devices {settings.get('devices')}: a run has at least 1")
    return count


def _counted_devices(settings: Mapping[str, Any]) -> int:
    asked = settings.get("devices")
    if isinstance(asked, list):
        return len(asked)
    text = str(asked).strip()
    if "," in text:
        return len([device for device in text.split(",") if device.strip()])
    if text in ("auto", "None", "-1"):
        return max(1, torch.cuda.device_count()) if accelerator_of(settings) == "cuda" else 1
    return int(text) if text.isdigit() else 1


def planned_ranks(settings: Mapping[str, Any], launch: Launch) -> int:
    """Ranks of the run: those launched, or those that the trainer will start."""
    return launch.world_size if launch.by != "hand" else devices_of(settings) * int(settings.get("num_nodes") or 1)


def planned_local_ranks(settings: Mapping[str, Any], launch: Launch) -> int:
    """The same on this machine."""
    return launch.local_world_size if launch.by != "hand" else devices_of(settings)


def reading_ranks(settings: Mapping[str, Any], launch: Launch) -> int:
    """Ranks that read different data: those that share one model by tensor parallelism read the same."""
    _, arguments = _strategy(settings)
    shared = arguments.get("tensor_parallel_size")
    return planned_ranks(settings, launch) // (shared if isinstance(shared, int) else 1)


def is_sharded(settings: Mapping[str, Any]) -> bool:
    """Whether every rank writes its part of a checkpoint."""
    name, arguments = _strategy(settings)
    if arguments.get("checkpoint") == "full":
        return False
    return any(part in name.lower() for part in ("fsdp", "modelparallel", "sharded", "deepspeed"))


def _strategy(settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments of the trainer's strategy, which has no arguments where it is named alone."""
    strategy = settings.get("strategy")
    if not isinstance(strategy, dict):
        return str(strategy), {}
    return str(strategy.get("class_path")), strategy.get("init_args") or {}


def check_launch(settings: Mapping[str, Any], launch: Launch) -> Finding:
    """Whether the launcher started as many processes as the trainer's settings have devices."""
    devices, nodes = devices_of(settings), int(settings.get("num_nodes") or 1)
    asked = f"devices {devices} x nodes {nodes}"
    if launch.by not in ("torchrun", "SLURM"):
        alone = f"this process alone looks; the run has {counted(devices * nodes, 'rank')}"
        hint = "; start doctor as the run is started, to see the ranks meet" if devices * nodes > 1 else ""
        return Finding("launch", True, alone + hint)
    if devices * nodes != launch.world_size:
        return Finding(
            "launch",
            False,
            f"{launch.by} started {counted(launch.world_size, 'rank')}, and the trainer asks for {asked}",
            "set --trainer.devices and --trainer.num_nodes to what is launched, or launch as many",
        )
    return Finding("launch", True, f"{counted(launch.world_size, 'rank')} by {launch.by}, {asked}")
