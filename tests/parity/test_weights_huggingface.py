"""Folders that transformers wrote give the same outputs here, and folders written here the same outputs there."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)
from weights_making import classification, pretraining, randomized, saved

from mae_lightning import load_encoder
from mae_lightning.models import PatchMask, encode_visible
from mae_lightning.weights.building import build_masked
from mae_lightning.weights.content import completed
from mae_lightning.weights.converting import convert
from mae_lightning.weights.huggingface import from_huggingface, to_huggingface
from mae_lightning.weights.opening import open_weights

ViT = {
    "image_size": 16,
    "patch_size": 8,
    "num_channels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture
def mae(tmp_path):
    model = randomized(ViTMAEForPreTraining(ViTMAEConfig(**ViT, **DECODER, norm_pix_loss=True)))
    model.save_pretrained(tmp_path / "mae")
    return model, tmp_path / "mae"


@torch.no_grad()
def test_their_pretraining_folder(mae):
    theirs, folder = mae
    weights = completed(open_weights(folder))
    ours = build_masked(weights)
    images, noise = torch.rand(2, 3, 16, 16), torch.rand(2, 4)
    mask = PatchMask.from_noise(noise, 0.75)
    output = theirs(images, noise=noise)
    close(ours(images, mask).prediction, output.logits[mask.is_masked].view(2, 3, -1))
    close(ours(images, mask).loss_per_patch.mean(), output.loss)  # normalised pixels, as their config says
    assert weights.norm_eps == 1e-12
    assert weights.assumed == ("ImageNet's mean and deviation",)  # the folder has no preprocessor


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mae encoder", "vit"])
def test_their_encoders(kind, tmp_path):
    if kind == "vit":
        theirs = randomized(ViTModel(ViTConfig(**ViT)))
    else:
        theirs = randomized(ViTMAEModel(ViTMAEConfig(**ViT, mask_ratio=0.0)))
    theirs.save_pretrained(tmp_path / "folder")
    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path / "folder")
    ours = load_encoder(tmp_path / "folder")
    images = torch.rand(2, 3, 16, 16)
    expected = theirs(images) if kind == "vit" else theirs(images, noise=torch.arange(4.0).expand(2, 4))
    close(ours.forward_features(images), expected.last_hidden_state)
    assert ours.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert ours.pretrained_cfg["std"] == (0.4, 0.5, 0.6)


@torch.no_grad()
def test_their_classifier(tmp_path):
    theirs = randomized(ViTForImageClassification(ViTConfig(**ViT, id2label={0: "cat", 1: "dog", 2: "owl"})))
    theirs.save_pretrained(tmp_path / "folder")
    ours, images = load_encoder(tmp_path / "folder", head=True), torch.rand(2, 3, 16, 16)
    close(ours(images), theirs(images).logits)
    assert ours.pretrained_cfg["label_names"] == ("cat", "dog", "owl")


@torch.no_grad()
def test_a_pretraining_run_there(tmp_path):
    task = pretraining(image_size=(16, 16))
    lines = convert(completed(open_weights(saved(task, tmp_path / "a.ckpt"))), "hf", tmp_path / "there")
    theirs, info = ViTMAEForPreTraining.from_pretrained(tmp_path / "there", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert lines[-1] == f"use: transformers.ViTMAEForPreTraining.from_pretrained('{tmp_path / 'there'}')"
    images, noise = torch.rand(2, 1, 16, 16), torch.rand(2, 4)
    mask = PatchMask.from_noise(noise, 0.75)
    output = theirs.eval()(images, noise=noise)
    close(task.model(images, mask).prediction, output.logits[mask.is_masked].view(2, 3, -1))
    close(encode_visible(task.model.encoder, images, mask.kept), theirs.vit(images, noise=noise).last_hidden_state)
    assert theirs.config.norm_pix_loss is False
    assert ViTImageProcessor.from_pretrained(tmp_path / "there").image_mean == pytest.approx([0.3])


@torch.no_grad()
def test_a_classifier_and_an_encoder_there(tmp_path):
    task = classification(pool="class", class_names=tuple("abcde"), batch_norm=True)
    weights = completed(open_weights(saved(task, tmp_path / "a.ckpt")))
    convert(weights, "hf", tmp_path / "classifier")
    theirs = ViTForImageClassification.from_pretrained(tmp_path / "classifier").eval()
    images = torch.rand(2, 1, 16, 24)
    close(theirs(images).logits, task.model(images))  # the BatchNorm before the head is folded into it
    assert theirs.config.id2label == dict(enumerate("abcde"))

    task = pretraining()
    weights = completed(open_weights(saved(task, tmp_path / "b.ckpt"))).without_decoder
    convert(weights, "hf", tmp_path / "encoder")
    theirs, info = ViTModel.from_pretrained(tmp_path / "encoder", add_pooling_layer=False, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(theirs.eval()(images).last_hidden_state, task.model.encoder.forward_features(images))


def test_there_and_back_is_bit_exact_in_every_spelling(mae):
    theirs, folder = mae
    weights = completed(open_weights(folder))
    ours = {**weights.encoder, **weights.decoder}
    for spelling in (to_huggingface(weights), theirs.state_dict(), load_file(folder / "model.safetensors")):
        back = from_huggingface(spelling)
        assert back.keys() == ours.keys()
        assert all(torch.equal(back[name], value) for name, value in ours.items())
