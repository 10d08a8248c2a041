"""FSDP2: weights, gradients and the optimiser's state in shards over all processes."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.optim import Optimizer

from mae_lightning.strategies.durable import digest_of, seal_folder, take_name, temporary_of
from mae_lightning.weights import is_sharded
from mae_lightning.weights.files import remove
from mae_lightning.weights.sharded import OPTIMIZER, REST, TABLE, by_number, load_shards, read_rest


class FullySharded(ModelParallelStrategy):
    """Shards a task over all processes of all nodes; the losses are those of DDP.

    Needs torch's ``fully_shard`` in the task's ``configure_model``, as every task of this package has it.

    Args:
        checkpoint: ``full`` gathers a checkpoint into one file; ``sharded`` has each process write its part into a
            folder. Both go on under every strategy, and ``convert`` reads both.
    """

    def __init__(self, checkpoint: Literal["full", "sharded"] = "full") -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=checkpoint == "sharded")

    def setup_environment(self) -> None:
        """Meets the other processes; all of them share the data among each other."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    # ---------------------------------------------------------------- saving

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's state: whole on the first process and counted through, or this process's part, by names."""
        options = StateDictOptions(full_state_dict=not self._save_distributed_checkpoint, cpu_offload=True)
        state = get_optimizer_state_dict(self._module, _bare(optimizer), options=options)
        return by_number(state) if state and not self._save_distributed_checkpoint else state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint of all processes; it takes its name when it is whole."""
        path = Path(self.broadcast(str(filepath)))
        if self._save_distributed_checkpoint:
            self._save_shards(checkpoint, path)
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, path)
        self.barrier()

    def _save_shards(self, checkpoint: dict[str, Any], path: Path) -> None:
        folder = temporary_of(path)
        shards = {"state_dict": checkpoint.pop("state_dict")}
        for count, state in enumerate(checkpoint.pop("optimizer_states", [])):
            shards[f"{OPTIMIZER}{count}"] = state
        if self.is_global_zero:
            remove(folder)
            folder.mkdir(parents=True)
        self.barrier()
        save_shards(shards, storage_writer=FileSystemWriter(folder, sync_files=True))
        if self.is_global_zero:
            torch.save(checkpoint, folder / REST)
        own = [file for file in folder.iterdir() if file.name.startswith(f"__{self.global_rank}_")]
        common = [folder / TABLE, folder / REST] if self.is_global_zero else []
        digests: list[dict[str, str]] = [{} for _ in range(self.world_size)]
        dist.all_gather_object(digests, {file.name: digest_of(file) for file in (*own, *common)})
        if self.is_global_zero:
            seal_folder(folder, {name: digest for part in digests for name, digest in part.items()})
            take_name(folder, path)

    # ---------------------------------------------------------------- loading

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Takes over the state of a checkpoint of any strategy; tensors and plain values only.

        Returns:
            What else it holds.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        return self._load_shards(path) if is_sharded(path) else self._load_whole(path)

    def _load_shards(self, path: Path) -> dict[str, Any]:
        shards: dict[str, Any] = {"state_dict": get_model_state_dict(self._module)}
        for count, optimizer in enumerate(self.optimizers):
            shards[f"{OPTIMIZER}{count}"] = get_optimizer_state_dict(self._module, _bare(optimizer))
        load_shards(shards, path)
        set_model_state_dict(self._module, shards["state_dict"])
        for count, optimizer in enumerate(self.optimizers):
            set_optimizer_state_dict(self._module, _bare(optimizer), shards[f"{OPTIMIZER}{count}"])
        return read_rest(path)

    def _load_whole(self, path: Path) -> dict[str, Any]:
        content = self.checkpoint_io.load_checkpoint(path)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self._module, content.pop("state_dict"), options=options)
        for optimizer, state in zip(self.optimizers, content.get("optimizer_states", []), strict=False):
            named = by_name(state, _bare(optimizer), self._module)
            set_optimizer_state_dict(self._module, _bare(optimizer), named, options=options)
        return content

    @property
    def _module(self) -> nn.Module:
        assert self.model is not None
        return self.model


def by_name(state: Mapping[str, Any], optimizer: Optimizer, module: nn.Module) -> dict[str, Any]:
    """An optimiser's state with parameters by name, from one where they are counted through its groups.

    Lightning counts through the module instead, which gives states to the wrong parameters where groups differ.

    Args:
        state: ``state`` and ``param_groups`` as optimisers write them.
        optimizer: Of the same groups.
        module: Knows the names.

    Raises:
        ValueError: The groups are others.
    """
    known = {id(parameter): name for name, parameter in module.named_parameters()}
    now = [[known[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    saved = [list(group["params"]) for group in state["param_groups"]]
    if [len(group) for group in now] != [len(group) for group in saved]:
        raise ValueError(
            f"the checkpoint's optimiser has groups of {[len(group) for group in saved]} parameters, and this run's of"
            f" {[len(group) for group in now]}: begin a new run from its weights"
        )
    names = dict(zip(chain.from_iterable(saved), chain.from_iterable(now), strict=True))
    groups = [{**group, "params": names_now} for group, names_now in zip(state["param_groups"], now, strict=True)]
    return {"state": {names[number]: value for number, value in state["state"].items()}, "param_groups": groups}


def _bare(optimizer: Optimizer | LightningOptimizer) -> Optimizer:
    return optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
