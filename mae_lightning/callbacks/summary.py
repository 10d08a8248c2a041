"""A short table when a run starts, and what came of it when it ends."""

from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from mae_lightning.data import ShardDataModule, data_of
from mae_lightning.data.urls import public_name
from mae_lightning.tasks import Classification, Task


class RunSummary(Callback):
    """Prints what will be trained, on what, for how long; at the end the final figures and where everything lies.

    Args:
        run_dir: The run's folder.
        next_recipe: The recipe that goes on from the run's checkpoint.
    """

    def __init__(self, run_dir: Path, next_recipe: Path | None = None) -> None:
        self.run_dir, self.next_recipe = run_dir, next_recipe

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table."""
        data = data_of(trainer)
        rows = pl_module.summary() if isinstance(pl_module, Task) else {}
        if data is not None:
            rows |= _data_rows(data, trainer.world_size)
        rows["device"] = f"{trainer.world_size} x {_device_name(pl_module.device)}, precision {trainer.precision}"
        if isinstance(pl_module, Task):
            rows["learning rate"] = pl_module.lr_rule
        rows["length"] = f"{_epochs(trainer)}, {int(trainer.estimated_stepping_batches)} steps"
        rows["folder"] = str(self.run_dir)
        _print_table(rows)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the final figures, the files and the next command."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        rows = {name.removeprefix("val/"): f"{value:.4f}" for name, value in sorted(figures.items())}
        rows |= pl_module.results(figures) if isinstance(pl_module, Task) else {}
        last = self.run_dir / "checkpoints" / "last.ckpt"
        rows["checkpoint"] = str(last)
        if (self.run_dir / "pictures").is_dir():
            rows["pictures"] = str(self.run_dir / "pictures")
        rows["next"] = f"python -m mae_lightning {self._next(trainer, pl_module, last)}"
        _print_table(rows)

    def _next(self, trainer: Trainer, pl_module: LightningModule, last: Path) -> str:
        """The command that comes next."""
        data = data_of(trainer)
        if self.next_recipe is not None:
            return f"fit --config {self.next_recipe} --model.init_args.init_from={last}"
        if isinstance(pl_module, Classification) and data is not None:
            judged_on = data.sources.get("test", data.sources.get("val"))
            held_out = f" --val {public_name(judged_on.name)}" if judged_on is not None else ""
            return f"evaluate {last} --data {public_name(data.sources['train'].name)}{held_out}"
        return f"validate --config {self.run_dir / 'config.yaml'} --ckpt_path {last}"


def _data_rows(data: ShardDataModule, world_size: int) -> dict[str, str]:
    sizes = ", ".join(f"{len(source.manifest):,} {split}" for split, source in data.sources.items())
    height, width = data.image_size
    name = public_name(next(iter(data.sources.values())).name)
    rows = {
        "data": f"{name}: {sizes} images, {data.num_channels} x {height} x {width}",
        "batch": f"{data.global_batch_size} images a step = {data.micro_batch_size} on a device"
        f" x {data.accumulation} accumulated x {world_size} devices",
    }
    if data.repeats > 1:
        rows["batch"] += f"; {data.repeats} crops of each image"
    if data.image_size_by_epoch:
        changes = sorted(data.image_size_by_epoch.items())
        rows["sizes"] = ", ".join(f"{tall} x {wide} from epoch {epoch}" for epoch, (tall, wide) in changes)
    return rows


def _epochs(trainer: Trainer) -> str:
    return f"{trainer.max_epochs} epochs" if trainer.max_epochs not in (None, -1) else "no fixed number of epochs"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _print_table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    print("\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items()) + "\n", flush=True)
