"""What a sharded strategy takes over of a checkpoint in one file."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from mae_lightning.strategies import FullySharded
from mae_lightning.strategies.durable import DurableCheckpointIO


@pytest.mark.parametrize("others", [{}, {"optimizer_states": []}])
def test_a_checkpoint_of_weights_alone_is_enough_to_validate(
    others: dict[str, list[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io, weights = DurableCheckpointIO(), torch.nn.Linear(2, 2).state_dict()
    io.save_checkpoint({"state_dict": weights, "global_step": 3, **others}, tmp_path / "weights.ckpt")
    strategy = FullySharded()
    strategy.model, strategy.checkpoint_io = torch.nn.Linear(2, 2), io
    monkeypatch.setattr(ModelParallelStrategy, "broadcast", lambda self, value: value)
    assert strategy.load_checkpoint(tmp_path / "weights.ckpt")["global_step"] == 3
    assert torch.equal(strategy.model.weight, weights["weight"])
