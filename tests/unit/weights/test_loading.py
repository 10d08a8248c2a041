import argparse
import os

import pytest
import torch

from mae_lightning.models import TransformerDecoder
from mae_lightning.tasks import MAEPretraining
from mae_lightning.weights import load_pretrained, read_checkpoint


def task(seed: int = 0, dim: int = 16, **options) -> MAEPretraining:
    torch.manual_seed(seed)
    decoder = TransformerDecoder(depth=1, dim=dim, num_heads=2)
    options = {"encoder": "nano/4", "image_size": (16, 16), "num_channels": 1, "mean": (0.5,), "std": (0.2,)} | options
    return MAEPretraining(decoder=decoder, **options)


def save(one: MAEPretraining, path) -> str:
    checkpoint = {"state_dict": one.state_dict()}
    one.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_starts_from_a_checkpoint_of_ours(tmp_path):
    path = save(task(0), tmp_path / "last.ckpt")
    assert same(task(1, init_from=path).model, task(0).model)
    assert not same(task(1).model, task(0).model)


def test_starts_from_the_official_layout_with_and_without_decoder(tmp_path):
    from mae_lightning.weights.official import to_official

    official = {"model": to_official(task(0).model.state_dict())}
    torch.save(official, tmp_path / "full.pth")
    assert same(task(1, init_from=str(tmp_path / "full.pth")).model, task(0).model)
    encoder = {key: value for key, value in official["model"].items() if "decoder" not in key and key != "mask_token"}
    torch.save({"model": encoder}, tmp_path / "encoder.pth")
    one = task(1)
    assert "the decoder is fresh" in load_pretrained(one.model, tmp_path / "encoder.pth")
    assert same(one.model.encoder, task(0).model.encoder)
    assert same(one.model.decoder, task(1).model.decoder)


def test_another_model_is_named_and_nothing_is_changed(tmp_path):
    path = save(task(0, dim=32), tmp_path / "last.ckpt")
    one = task(1)
    with pytest.raises(
        ValueError, match=r"last\.ckpt does not fit the model: mask_token is \[1, 1, 32\], the model's is"
    ):
        load_pretrained(one.model, path)
    assert same(one.model, task(1).model)


def test_missing_and_unexpected_keys_are_named(tmp_path):
    one = task(0)
    checkpoint = {"state_dict": one.state_dict()}
    one.on_save_checkpoint(checkpoint)
    checkpoint["state_dict"]["model.extra"] = checkpoint["state_dict"].pop("model.mask_token")
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="missing mask_token; unexpected extra"):
        load_pretrained(task(1).model, tmp_path / "last.ckpt")


def test_an_official_file_written_while_training_is_read(tmp_path):
    from mae_lightning.weights.official import to_official

    content = {"model": to_official(task(0).model.state_dict()), "epoch": 3, "args": argparse.Namespace(lr=1.0)}
    torch.save(content, tmp_path / "official.pth")
    assert same(task(1, init_from=str(tmp_path / "official.pth")).model, task(0).model)


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "empty.ckpt").touch()
    torch.save({"call": os.system}, tmp_path / "code.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name, reason in {"text": "none", "empty": "none", "code": "more than tensors", "list": "a list"}.items():
        with pytest.raises(ValueError, match=rf"{name}\.ckpt.*{reason}"):
            read_checkpoint(tmp_path / f"{name}.ckpt")
    whole = (tmp_path / "list.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.ckpt is damaged"):
        read_checkpoint(tmp_path / "cut.ckpt")
