"""The data module through a real, small Trainer: exactness, resume at every kind of save, topologies."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from shard_making import encoded, npy, write_tar

from mae_lightning.data.batch import Batch
from mae_lightning.data.manifest_file import write_manifest
from mae_lightning.data.module import ShardDataModule
from mae_lightning.data.plan import Lanes
from mae_lightning.data.sources import open_source
from mae_lightning.data.statistics import channel_statistics
from mae_lightning.data.urls import Patience

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


def test_the_state_is_small_and_free_of_the_topology(data: Any, tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    trainer(tmp_path, callbacks=[keeper]).fit(Ledger(), data(num_workers=2, max_micro_batch_size=2))
    state = torch.load(tmp_path / "kept" / "step=3.ckpt", weights_only=True)["ShardDataModule"]
    assert state.pop("data") == data().sources["train"].manifest.digest
    assert sum(state.pop("parts").values()) == 43
    assert state == {
        "position": {"epoch": 0, "step": 3, "validation_pending": True},
        "recipe": {"global_batch_size": 8, "repeats": 1, "seed": 0, "lanes": {"slots": 1, "phases": 1, "buffer": None}},
    }


def test_another_order_or_other_data_cannot_go_on(data: Any, make_shards: Any, tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path / "kept", filename="x")
    trainer(tmp_path, callbacks=[keeper]).fit(Ledger(), data())
    checkpoint = tmp_path / "kept" / "x.ckpt"
    for options, message in (
        (
            {"global_batch_size": 4},
            "made with global_batch_size 8, and this run has 4: use the same, or begin a new run",
        ),
        ({"seed": 1}, "made with seed 0, and this run has 1"),
        ({"lanes": Lanes(2, 2, 9)}, "made with lanes"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer(tmp_path, 3).fit(Ledger(), data(**options), ckpt_path=checkpoint, weights_only=True)
    other = make_shards([20, 6, 18], folder="other")[0].parent
    module = ShardDataModule(str(other), image_size=4, global_batch_size=8, mean=(0.5,), std=(0.5,), num_workers=0)
    changed = r"43 -> 44 samples; shard-002\.tar: 17 -> 18"
    with pytest.raises(ValueError, match=f"made on other training data than {other} is now: {changed}; begin"):
        trainer(tmp_path, 3).fit(Ledger(), module, ckpt_path=checkpoint, weights_only=True)
    trainer(tmp_path).validate(Ledger(), data(seed=1), ckpt_path=checkpoint, weights_only=True, verbose=False)


def test_a_batch_larger_than_the_data_is_an_error(data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="43 training samples do not fill one global batch of 44; a global_batch_size"):
        trainer(tmp_path).fit(Ledger(), data(global_batch_size=44))


def test_accumulation_asked_of_the_trainer_is_kept(data: Any, tmp_path: Path) -> None:
    module, model = data(), Ledger()
    runner = trainer(tmp_path, accumulate_grad_batches=4)
    runner.fit(model, module)
    assert (module.micro_batch_size, module.accumulation, runner.global_step) == (2, 4, 10)
    with pytest.raises(
        ValueError, match="global_batch_size 8 does not divide by 1 devices x accumulation 3 = 3; 6 or 9"
    ):
        trainer(tmp_path, accumulate_grad_batches=3).fit(Ledger(), data())


class Collect(L.LightningModule):
    def predict_step(self, batch: Batch) -> list[int]:
        return batch["index"][batch["valid"]].tolist()

    def test_step(self, batch: Batch) -> None:
        self.seen = [*getattr(self, "seen", []), *batch["index"][batch["valid"]].tolist()]


def test_prediction_and_test_go_through_the_held_out_data_in_order(data: Any, tmp_path: Path) -> None:
    predicted = trainer(tmp_path).predict(Collect(), data(max_micro_batch_size=4))
    assert predicted == [[0, 1, 2, 3], [4, 5, 6]]
    model = Collect()
    trainer(tmp_path).test(model, data(), verbose=False)
    assert model.seen == list(range(7))


def test_a_bad_sample_stops_a_run_in_one_line_or_is_skipped(data: Any, tmp_path: Path) -> None:
    module = data()
    container = module.sources["val"].manifest.path(1)
    content = bytearray(Path(container).read_bytes())
    content[512:540] = bytes(28)
    Path(container).write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-001.tar: sample '0004': bytes that begin with") as error:
        trainer(tmp_path).fit(Ledger(), data())
    assert "\n" not in str(error.value)
    model, module = Ledger(), data(max_bad_samples=1)
    trainer(tmp_path).fit(model, module)
    assert list(module.bad_samples.seen) == [("val", 4)]
    assert model.validated.tolist() == [1000 * step + index for step in (5, 10) for index in (0, 1, 2, 3, 5, 6)]


def test_probe_loaders_give_a_seeded_bank_and_all_queries(data: Any, tmp_path: Path) -> None:
    banks = []
    for seed in (0, 0, 1):
        module = data(seed=seed)
        module.trainer = trainer(tmp_path)
        module.setup("fit")
        bank, queries = module.probe_loaders(20)
        rows = [batch["index"][batch["valid"]] for batch in bank]
        banks.append(torch.cat(rows).tolist())
        assert torch.cat([batch["index"][batch["valid"]] for batch in queries]).tolist() == list(range(7))
    assert banks[0] == banks[1] != banks[2]
    assert len(set(banks[0])) == 20
    assert all(
        batch["label"][batch["valid"]].tolist() == (batch["index"][batch["valid"]] % 3).tolist() for batch in bank
    )


def test_samples_come_by_index_without_augmentation(data: Any) -> None:
    module = data()
    batch = module.samples("train", [30, 2, 30])
    assert batch["index"].tolist() == [30, 2, 30]
    assert batch["label"].tolist() == [0, 2, 0]
    assert batch["image"][:, :, 0, 0].tolist() == [[n, 255 - n, n // 2] for n in (30, 2, 30)]
    assert module.key_of("train", 30) == "0030"
    with pytest.raises(ValueError, match="no sample with index 43 among 43"):
        module.samples("train", [43])


def test_bad_samples_are_left_out_of_those_by_index_where_some_may_be_skipped(data: Any) -> None:
    path = Path(data().sources["val"].manifest.path(1))
    content = bytearray(path.read_bytes())
    content[512:540] = bytes(28)  # of sample 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"sample '0004': bytes that begin with"):
        data().samples("val", [3, 4])
    module = data(max_bad_samples=1)
    batch = module.samples("val", [6, 4, 3])
    assert batch["index"].tolist() == [6, 3]
    assert batch["label"].tolist() == [0, 0]
    assert batch["valid"].tolist() == [True, True]
    assert batch["image"][:, 0, 0, 0].tolist() == [6, 3]
    with pytest.raises(ValueError, match=r"sample '0004': bytes that begin with"):
        module.samples("val", [4])


def test_patience_is_that_of_every_remote_read(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("mae_lightning.data.urls.time.sleep", waits.append)
    here = data(patience=Patience(timeout=1.0, tries=2))
    manifest = replace(here.sources["val"].manifest, base="http://127.0.0.1:1")
    write_manifest(tmp_path / "far", {"val": manifest}, {"val": ["", ""]})
    far = open_source(f"{tmp_path}/far", "val")
    here.sources["val"] = far
    for read in (
        lambda: here.samples("val", [0]),
        lambda: ShardDataModule(far.name, image_size=4, patience=here.patience),
        lambda: channel_statistics(far, here.evaluate, None, None, skip_bad=False, patience=here.patience),
    ):
        waits.clear()
        with pytest.raises(ValueError, match="cannot be read"):
            read()
        assert waits == [1.0]


def test_the_attributes_that_others_are_linked_to() -> None:
    module = ShardDataModule("fashion_mnist", image_size=(32, 24), global_batch_size=10)
    assert (module.image_size, module.num_channels, module.num_classes) == ((32, 24), 1, 10)
    assert module.class_names is not None
    assert (module.mean, module.std) == ((0.286369,), (0.352919,))
    assert len(module.sources["val"].manifest) == 1000
    colour = ShardDataModule("fashion_mnist", image_size=28, num_channels=3, mean=(0.1, 0.2, 0.3))
    assert (colour.image_size, colour.num_channels) == ((28, 28), 3)
    assert (colour.mean, colour.std) == ((0.1, 0.2, 0.3), (0.352919,) * 3)
    assert colour.samples("val", [0])["image"].shape == (1, 3, 28, 28)


def test_statistics_are_measured_where_nothing_says_them(make_shards: Any, tmp_path: Path) -> None:
    folder = make_shards([100])[0].parent
    module = ShardDataModule(str(folder), image_size=4)
    again = ShardDataModule(str(folder), image_size=4)
    colours = torch.tensor([[n, 255 - n, n // 2] for n in range(100)], dtype=torch.float64) / 255
    assert module.num_channels == 3
    assert module.mean == pytest.approx(colours.mean(0).tolist(), abs=1e-5)
    assert module.std == pytest.approx(colours.std(0, unbiased=False).tolist(), abs=1e-5)
    assert (again.mean, again.std) == (module.mean, module.std)


def test_mixed_grey_and_colour_become_colour_and_flat_data_has_a_deviation(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for name, mode in (("a", "L"), ("b", "RGB")):
        (tmp_path / "flat" / f"{name}.png").write_bytes(encoded(0, mode=mode))
    module = ShardDataModule(str(tmp_path / "flat"), image_size=4)
    assert (module.num_channels, module.num_classes, module.mean) == (3, None, (0.0, 0.5, 0.0))
    assert module.std == (1.0, 0.5, 1.0)


def test_arrays_of_five_channels_in_a_rectangle_train(tmp_path: Path) -> None:
    arrays = np.random.RandomState(0).rand(9, 6, 7, 5).astype(np.float32)
    write_tar(tmp_path / "a.tar", {f"{number}.npy": npy(array) for number, array in enumerate(arrays)})
    module = ShardDataModule(str(tmp_path / "a.tar"), image_size=(6, 4), global_batch_size=4, num_workers=0)
    model = Ledger()
    trainer(tmp_path, 1).fit(model, module)
    assert (len(model.ledger), len(model.validated)) == (8, 0)
    assert (module.num_channels, len(module.mean)) == (5, 5)
    assert module.samples("train", [0])["image"].dtype == torch.float32
    assert module.mean == pytest.approx(arrays[:, :, 1:6].mean((0, 1, 2)).tolist(), abs=0.05)


def test_unfit_arguments_are_one_line(data: Any) -> None:
    with pytest.raises(ValueError, match=r"mean \(0.5, 0.5\) has 2 values, and the images have 3 channels"):
        data(mean=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"std \(0.0,\) must be above 0"):
        data(std=(0.0,))
    with pytest.raises(ValueError, match=r"no data: name some with `data.train`"):
        ShardDataModule()
    with pytest.raises(ValueError, match=r"no val data: name some with `data.val`"):
        ShardDataModule("fashion_mnist:train", image_size=4).samples("val", [0])


def test_validation_without_held_out_data_is_an_error(data: Any, tmp_path: Path) -> None:
    module = data()
    del module.sources["val"]
    with pytest.raises(ValueError, match=r"no val data: name some with `data.val`"):
        trainer(tmp_path).validate(Ledger(), module)


def test_without_a_trainer_each_pass_is_the_next_epoch() -> None:
    data = ShardDataModule("fashion_mnist:val", image_size=28, global_batch_size=500, num_workers=0)
    data.setup("fit")
    loader = data.train_dataloader()
    passes = [torch.cat([batch["index"] for batch in loader]).tolist() for _ in range(2)]
    assert all(sorted(order) == list(range(1000)) for order in passes)
    assert passes[0] != passes[1]
    loader.close()
