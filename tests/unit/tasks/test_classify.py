import copy

import pytest
import torch
from lightning import Trainer
from timm.data.mixup import mixup_target

from mae_lightning.data import ShardDataModule
from mae_lightning.tasks import Classification

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",  # of Lightning on torch 2.15
    "ignore:.*does not have many workers",
)
SWIN = "swin_tiny_patch4_window7_224"


def task(**changes):
    torch.manual_seed(0)
    options = {"encoder": "nano/4", "image_size": (32, 32), "num_channels": 1, "mean": (0.3,), "std": (0.3,)}
    options |= {"num_classes": 10, "global_batch_size": 32, "warmup_epochs": 0.5}
    return Classification(**(options | changes))


def batch(size=4):
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randint(256, (size, 1, 32, 32), dtype=torch.uint8, generator=generator),
        "label": torch.arange(size) % 10,
        "index": torch.arange(size),
        "valid": torch.ones(size, dtype=torch.bool),
    }


def trainer(**settings):
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet = dict.fromkeys(off, False) | {"log_every_n_steps": 1}
    return Trainer(accelerator="cpu", devices=1, **(quiet | settings))


def fit(one, steps=3):
    data = ShardDataModule("fashion_mnist", image_size=32, global_batch_size=32, num_workers=0)
    run = trainer(max_epochs=1, limit_train_batches=steps, limit_val_batches=0)
    run.fit(one, datamodule=data)
    return run


@pytest.mark.parametrize("encoder", ["nano/4", SWIN])
def test_no_trainable_block_changes_nothing_of_the_encoder(encoder):
    one = task(encoder=encoder, trainable_blocks=0, batch_norm=True, optimizer="lars", weight_decay=0.0, base_lr=10.0)
    before = copy.deepcopy(one.model.state_dict())
    fit(one)
    after = one.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    head = "head" if encoder == "nano/4" else "head.fc"
    head_names = {"0.running_mean", "0.running_var", "0.num_batches_tracked", "1.weight", "1.bias"}
    assert changed == {f"{head}.{name}" for name in head_names}


def test_half_a_block_changes_what_it_names():
    one = task(trainable_blocks=0.5, base_lr=0.1)
    before = copy.deepcopy(one.model.state_dict())
    fit(one)
    changed = {name for name, value in one.model.state_dict().items() if not torch.equal(value, before[name])}
    layers = ["blocks.5.norm2", "blocks.5.mlp.fc1", "blocks.5.mlp.fc2", "fc_norm", "head"]
    assert changed == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_what_is_frozen_stays_in_eval_mode():
    one = task(trainable_blocks=1, drop_path=0.2).train()
    assert [block.training for block in one.model.blocks] == [False] * 5 + [True]
    assert not one.model.training
    assert one.model.head.training
    assert one.model.fc_norm.training
    assert all(module.training for module in task().train().model.modules())
    assert not any(module.training for module in one.eval().modules())


def test_every_layer_ends_at_its_share_of_the_least_rate():
    one = task(layer_decay=0.5, base_lr=0.8, min_lr=0.01)
    run = fit(one, steps=4)
    peaks = [group["lr"] for group in one.parameter_groups()]
    ends = [group["lr"] for group in run.optimizers[0].param_groups]
    assert max(peaks) == pytest.approx(0.1)
    assert ends == pytest.approx([peak * 0.1 for peak in peaks])


def test_soft_targets_are_timms():
    one = task(label_smoothing=0.1)
    labels = torch.tensor([3, 0, 9])
    torch.testing.assert_close(one.soft_targets(labels), mixup_target(labels, 10, 1.0, 0.1))


def test_mixed_loss_is_the_mean_over_rows_that_count(monkeypatch):
    one = task(label_smoothing=0.1, mixup=0.8, cutmix=1.0, head_std=1.0)
    monkeypatch.setattr(one, "log_loss", lambda *_, **__: None)
    monkeypatch.setattr(type(one), "current_epoch", 0)
    monkeypatch.setattr(type(one), "global_rank", 0)
    whole = batch(6)
    first = one.training_step(whole, 0)
    assert torch.equal(first, one.training_step(whole, 0))
    assert not torch.equal(first, one.training_step(whole, 1))  # another place in the epoch, another mixing
    whole["valid"] = torch.tensor([True, True, True, False, False, False])
    part = {name: values[:3] for name, values in whole.items()}
    unmixed = task(label_smoothing=0.1, head_std=1.0)
    monkeypatch.setattr(unmixed, "log_loss", lambda *_, **__: None)
    torch.testing.assert_close(one.training_step(whole, 0), unmixed.training_step(part, 0))


def test_validation_counts_valid_rows_once_and_names_an_unlabelled_one():
    one = task(confusion_matrix=True).eval()
    data = batch(5)
    data["valid"][4] = False
    one.validation_step(data, 0)
    logits = one(data["image"])[:4]
    figures = one.metrics.compute()
    assert figures["accuracy"].item() == (logits.argmax(1) == data["label"][:4]).float().mean().item()
    expected = torch.nn.functional.cross_entropy(logits, data["label"][:4])
    torch.testing.assert_close(figures["loss"], expected.detach())
    assert one.metrics.confusion.compute().sum() == 4
    data["label"][0] = -1
    with pytest.raises(ValueError, match="held-out image has no label"):
        one.validation_step(data, 0)


def test_the_card_rebuilds_the_model():
    one = task(pool="class", trainable_blocks=0, batch_norm=True, class_names=tuple("abcdefghij"))
    card = one.card()
    again = type(card).from_checkpoint({"mae_lightning": card.to_dict()}, "here")
    assert again == card
    from mae_lightning.models import build_classifier

    model = build_classifier(again.encoder, image_size=again.image_size, num_channels=1, **again.classifier)
    model.load_state_dict(one.model.state_dict())


def test_the_table_says_what_trains():
    rows = task(trainable_blocks=0.5).summary()
    assert rows["parameters"] == "0.68 M, 0.076 M of them train (blocks: 0.5)"
    assert rows["weights"] == "scratch"
    assert "(blocks: all)" in task().summary()["parameters"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": None}, "classification needs labels, and the data has none"),
        ({"trainable_blocks": 0, "layer_decay": 0.75}, "layer_decay 0.75 changes no learning rate"),
        ({"trainable_blocks": 0, "drop_path": 0.1}, "drop_path 0.1 drops nothing"),
        ({"trainable_blocks": 0.5, "drop_path": 0.1}, "drop_path 0.1 drops nothing"),
        ({"optimizer": "lars", "layer_decay": 0.75}, "layer_decay 0.75 is not for lars"),
        ({"trainable_blocks": 9}, "trainable_blocks 9 must be"),
        ({"init_from": "nowhere.ckpt"}, "checkpoint nowhere.ckpt does not exist"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_one_line(settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        task(**settings)
    assert "\n" not in str(caught.value)
