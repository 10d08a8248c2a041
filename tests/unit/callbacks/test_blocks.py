"""What is done to each block changes no number and no name."""

from unittest.mock import MagicMock

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn

from mae_lightning.callbacks import ActivationCheckpointing, CompiledBlocks
from mae_lightning.models import MaskedAutoencoder, PatchMask, TransformerDecoder, ViTSize, build_swin, repeated_blocks


def small() -> MaskedAutoencoder:
    torch.manual_seed(0)
    size = ViTSize(16, 3, 2, patch_size=4)
    return MaskedAutoencoder(size, TransformerDecoder(depth=2, dim=16, num_heads=2), image_size=(16, 16))


class Task(LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def test_blocks_are_those_of_encoder_and_decoder() -> None:
    model = small()
    assert list(repeated_blocks(model)) == [*model.encoder.blocks, *model.decoder.blocks]
    swin = build_swin("swin-nano/2", image_size=(32, 32), num_channels=1, num_classes=10)
    assert len(list(repeated_blocks(swin))) == 6


def gradients(model: MaskedAutoencoder) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = PatchMask.from_noise(torch.rand(2, 16, generator=generator), 0.75)
    model(torch.rand(2, 3, 16, 16, generator=generator), mask).loss_per_patch.mean().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_activations_that_are_computed_again_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, again = small(), small()
    calls = 0
    mlp = type(again.encoder.blocks[0].mlp)
    forward = mlp.forward

    def counted(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return forward(*arguments, **options)

    monkeypatch.setattr(mlp, "forward", counted)
    ActivationCheckpointing().setup(MagicMock(spec=Trainer), Task(again), "fit")
    assert list(again.state_dict()) == list(plain.state_dict())
    found = gradients(again)
    assert calls == 2 * 5  # each block forward, and once more
    torch.testing.assert_close(found, gradients(plain), rtol=0, atol=0)


def test_each_block_is_compiled_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda block, mode: compiled.append((block, mode)))
    model = small()
    CompiledBlocks(mode="max-autotune").setup(MagicMock(spec=Trainer), Task(model), "fit")
    assert compiled == [(block, "max-autotune") for block in repeated_blocks(model)]
