"""How many processes a launcher has started, so that nobody has to say it twice."""

from collections.abc import Mapping
from typing import Any

from mae_lightning.planning.checks.ranks import is_slurm, whole_number


def launched_topology(environment: Mapping[str, str]) -> dict[str, Any]:
    """Nodes, and devices of each, that torchrun or SLURM's srun has started; empty where neither did.

    Args:
        environment: Of the process.

    Raises:
        ValueError: Nodes have different numbers of processes, SLURM was not told how many, or a variable is no number.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        world, local = (whole_number(environment, name, 1, 1) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return {"num_nodes": world // local, "devices": local}
    if is_slurm(environment):
        tasks, nodes = (whole_number(environment, name, 1, 1) for name in ("SLURM_NTASKS", "SLURM_NNODES"))
        if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environment:  # Lightning refuses it, too
            raise ValueError(f"SLURM started --ntasks={tasks}; say how many on a node instead: --ntasks-per-node")
        if tasks % nodes:
            raise ValueError(f"SLURM started {tasks} tasks on {nodes} nodes; give each node as many: --ntasks-per-node")
        return {"num_nodes": nodes, "devices": tasks // nodes}
    return {}


def with_launched_topology(settings: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The trainer's settings, with what the launcher has started where they leave it open.

    Args:
        settings: Of Lightning's Trainer.
        environment: Of the process.

    Raises:
        ValueError: They ask for something else than was started.
    """
    merged = dict(settings)
    for name, started in launched_topology(environment).items():
        asked = merged.get(name)
        if asked in (None, "auto", -1, "-1") or (name == "num_nodes" and asked == 1):
            merged[name] = started
        elif str(asked) != str(started) and not (isinstance(asked, list) and len(asked) == started):
            raise ValueError(
                f"trainer.{name} is {asked}, but the launcher started {started}; leave it out, or start {asked}"
            )
    return merged
