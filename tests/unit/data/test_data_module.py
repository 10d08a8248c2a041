"""The data module through a real, small Trainer: exactness, resume at every kind of save, topologies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mae_lightning.data.batch import Batch
from mae_lightning.data.module import ShardDataModule

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",  # of Lightning on torch 2.15
    "ignore:.*smaller than the logging interval",
    "ignore:.*callbacks used to create the checkpoint",
    "ignore:.*does not have many workers",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",  # exactly what is tested here
)
Step = tuple[int, int]


class Ledger(L.LightningModule):
    """A model whose weight is a function of the order of all samples, pixels and validations that it was given."""

    def __init__(self, fail_at: Step | None = None, fail_in_validation: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("ledger", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("validated", torch.zeros(0, dtype=torch.int64))
        self.fail_at, self.fail_in_validation = fail_at, fail_in_validation

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.ledger = torch.empty_like(checkpoint["state_dict"]["ledger"])
        self.validated = torch.empty_like(checkpoint["state_dict"]["validated"])

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        if (self.current_epoch, batch_idx) == self.fail_at:
            raise RuntimeError("killed")
        assert batch["valid"].all()
        self.ledger = torch.cat([self.ledger, batch["index"]])
        signal = batch["image"].double().mean() * (1 + batch["index"].double().sum()) / 1e5
        return ((self.weight - signal) ** 2).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if self.global_step == self.fail_in_validation:
            raise RuntimeError("killed")
        self.validated = torch.cat([self.validated, batch["index"][batch["valid"]] + 1000 * self.global_step])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def trainer(tmp_path: Path, epochs: int = 2, **options: Any) -> L.Trainer:
    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
        "enable_checkpointing": "callbacks" in options,
    }
    return L.Trainer(max_epochs=epochs, **{**settings, **options})


@pytest.fixture
def data(make_shards: Callable[..., list[Path]]) -> Callable[..., ShardDataModule]:
    """43 training samples in 3 uneven shards, 7 held out: 5 steps of 8 an epoch."""
    train, val = make_shards([20, 6, 17])[0].parent, make_shards([4, 3], folder="held-out")[0].parent

    def module(**options: Any) -> ShardDataModule:
        defaults = {"image_size": 4, "global_batch_size": 8, "num_workers": 0, "mean": (0.5,), "std": (0.5,)}
        return ShardDataModule(str(train), str(val), **{**defaults, **options})

    return module


def test_training_is_exact_and_validation_counts_each_sample_once(data: Any, tmp_path: Path) -> None:
    model = Ledger()
    trainer(tmp_path).fit(model, data())
    epochs = model.ledger.reshape(2, 40)
    assert all(len(set(epoch.tolist())) == 40 for epoch in epochs)
    assert not torch.equal(*epochs)
    assert model.validated.tolist() == [1000 * step + index for step in (5, 10) for index in range(7)]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_accumulation_change_no_global_batch(
    data: Any, tmp_path: Path, workers: int, accumulation: int
) -> None:
    plain, other = Ledger(), Ledger()
    trainer(tmp_path).fit(plain, data())
    module = data(num_workers=workers, max_micro_batch_size=8 // accumulation)
    trainer(tmp_path).fit(other, module)
    assert (module.micro_batch_size, module.accumulation) == (8 // accumulation, accumulation)
    assert other.ledger.tolist() == plain.ledger.tolist()


SAVES = {
    "at a batch's end": {"every_n_train_steps": 3, "save_top_k": -1},
    "at the epoch's last batch": {"every_n_train_steps": 5, "save_top_k": -1},
    "at validation": {"save_on_train_epoch_end": False, "save_top_k": -1},
    "at the epoch's end": {"save_on_train_epoch_end": True, "save_top_k": -1},
}


@pytest.mark.parametrize("resumed", [{}, {"num_workers": 2}, {"max_micro_batch_size": 4}], ids=str)
@pytest.mark.parametrize("saved", [{}, {"max_micro_batch_size": 2}], ids=str)
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("interval", [1.0, 2])
def test_a_resumed_run_is_the_uninterrupted_one(
    data: Any, tmp_path: Path, save: str, saved: dict[str, int], resumed: dict[str, int], interval: float
) -> None:
    micro = 8 // saved.get("max_micro_batch_size", 8)
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{epoch}-{step}", **SAVES[save])
    whole = Ledger()
    often = interval * micro if isinstance(interval, int) else interval
    trainer(tmp_path, callbacks=[keeper], val_check_interval=often).fit(whole, data(**saved))
    assert len(list((tmp_path / "kept").iterdir())) >= 2
    micro = 8 // resumed.get("max_micro_batch_size", 8)
    often = interval * micro if isinstance(interval, int) else interval
    for checkpoint in sorted((tmp_path / "kept").iterdir()):
        again = Ledger()
        runner = trainer(tmp_path, val_check_interval=often)
        runner.fit(again, data(**resumed), ckpt_path=checkpoint, weights_only=True)
        assert again.ledger.tolist() == whole.ledger.tolist(), checkpoint.name
        assert again.validated.tolist() == whole.validated.tolist(), checkpoint.name
        assert (runner.global_step, runner.current_epoch) == (10, 2)
        if saved == resumed:
            assert torch.equal(again.weight, whole.weight), checkpoint.name


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("where", [(0, 2), (0, 3), (1, 0), (1, 4), (0, 4)])
def test_a_save_on_an_exception_goes_back_to_the_last_whole_step(
    data: Any, tmp_path: Path, where: Step, accumulation: int
) -> None:
    options = {"max_micro_batch_size": 8 // accumulation}
    whole = Ledger()
    trainer(tmp_path).fit(whole, data(**options))
    keeper = ModelCheckpoint(tmp_path / "kept", filename="x", save_on_exception=True, every_n_train_steps=100)
    model = Ledger(fail_at=where)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, callbacks=[keeper]).fit(model, data(**options))
    (checkpoint,) = (tmp_path / "kept").iterdir()
    again = Ledger()
    trainer(tmp_path).fit(again, data(**options), ckpt_path=checkpoint, weights_only=True)
    assert torch.equal(again.weight, whole.weight)
    step = 5 * where[0] + where[1] // accumulation
    assert again.ledger.tolist()[-len(whole.ledger) + 8 * step :] == whole.ledger.tolist()[8 * step :]


def test_a_save_on_an_exception_in_validation_validates_again(data: Any, tmp_path: Path) -> None:
    whole = Ledger()
    trainer(tmp_path).fit(whole, data())
    keeper = ModelCheckpoint(tmp_path / "kept", filename="x", save_on_exception=True, every_n_train_steps=100)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, callbacks=[keeper]).fit(Ledger(fail_in_validation=5), data())
    (checkpoint,) = (tmp_path / "kept").iterdir()
    again = Ledger()
    trainer(tmp_path).fit(again, data(), ckpt_path=checkpoint, weights_only=True)
    assert again.ledger.tolist() == whole.ledger.tolist()
    assert again.validated.tolist() == whole.validated.tolist()
