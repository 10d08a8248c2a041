from unittest.mock import PropertyMock, patch

import pytest
import torch
from lightning import LightningModule, Trainer

from mae_lightning.callbacks import WeightEMA


def started(decay, steps):
    with patch.object(Trainer, "estimated_stepping_batches", PropertyMock(return_value=steps)):
        WeightEMA(decay).on_train_start(Trainer(accelerator="cpu", logger=False), LightningModule())


def test_a_run_of_five_memories_is_long_enough():
    started(0.99, 500)
    with pytest.raises(ValueError, match=r"decay 0.99 needs 500 steps and this run has 499; .* at most 0.99"):
        started(0.99, 499)


def test_the_decay_that_is_named_would_do():
    with pytest.raises(ValueError, match="at most") as caught:
        started(0.9999, 1250)
    allowed = float(str(caught.value).rsplit(" ", 1)[1])
    started(allowed, 1250)


def test_decay_is_a_share():
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        WeightEMA(1.0)


def test_the_average_lives_where_the_model_will():
    trainer, task, callback = Trainer(accelerator="cpu", logger=False), LightningModule(), WeightEMA()
    task.layer = torch.nn.Linear(2, 2)
    with patch.object(type(trainer.strategy), "root_device", PropertyMock(return_value=torch.device("meta"))):
        callback.setup(trainer, task, "fit")
    assert callback._average_model.module.layer.weight.is_meta
    assert not task.layer.weight.is_meta


def test_probes_and_checkpoints_of_a_validation_have_the_average():
    trainer, task, callback = Trainer(accelerator="cpu", logger=False), LightningModule(), WeightEMA()
    task.layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(task.layer.weight, 3.0)
    callback.setup(trainer, task, "fit")
    torch.nn.init.constant_(task.layer.weight, 5.0)
    callback.on_validation_epoch_start(trainer, task)
    callback.on_validation_epoch_end(trainer, task)
    assert task.layer.weight.item() == 3.0, "other callbacks' hooks of this moment may come later"
    checkpoint = {"state_dict": task.state_dict()}
    callback.on_save_checkpoint(trainer, task, checkpoint)
    assert checkpoint["state_dict"]["layer.weight"].item() == 3.0
    assert checkpoint["current_model_state"]["layer.weight"].item() == 5.0
    callback.on_validation_end(trainer, task)
    assert task.layer.weight.item() == 5.0
