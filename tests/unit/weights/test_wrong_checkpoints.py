"""Wrong files: one line each, which says what would be right; nothing runs, nothing is half loaded."""

import json
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mae_lightning.models import TransformerDecoder, ViTSize
from mae_lightning.tasks import Classification, MAEPretraining
from mae_lightning.weights import load_encoder, load_pretrained, read_encoder
from mae_lightning.weights.building import build_masked
from mae_lightning.weights.content import completed
from mae_lightning.weights.converting import FORMATS, convert, largest_difference, obstacle
from mae_lightning.weights.official import to_official
from mae_lightning.weights.opening import open_weights

IMAGES = {"image_size": (16, 16), "num_channels": 1, "mean": (0.5,), "std": (0.2,)}


def task(encoder="nano/4", **options) -> MAEPretraining:
    return MAEPretraining(encoder, TransformerDecoder(depth=1, dim=16, num_heads=2), **(IMAGES | options))


def save(one, path: Path) -> Path:
    torch.save({"state_dict": one.state_dict(), "mae_lightning": one.card().to_dict()}, path)
    return path


def encoder_alone(folder: Path) -> Path:
    one = task()
    content = {"model": to_official({k: v for k, v in one.model.state_dict().items() if k.startswith("encoder.")})}
    torch.save(content | {"mae_lightning": one.card().to_dict()}, folder / "encoder.pth")
    return folder / "encoder.pth"


def cut(folder: Path) -> Path:
    path = save(task(), folder / "cut.ckpt")
    path.write_bytes(path.read_bytes()[:5000])
    return path


def cut_safetensors(folder: Path) -> Path:
    save_file({"a": torch.zeros(1000)}, folder / "cut.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "cut.safetensors").read_bytes()[:500])
    return folder / "cut.safetensors"


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def malicious_archive(folder: Path) -> Path:
    torch.save({"model": Malicious()}, folder / "evil.ckpt")
    return folder / "evil.ckpt"


def malicious(folder: Path) -> Path:
    (folder / "evil.pth").write_bytes(pickle.dumps({"model": Malicious()}))
    return folder / "evil.pth"


def written(name: str, content: str):
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def without_config(folder: Path) -> Path:
    (folder / "hub").mkdir()
    save_file({"vit.embeddings.cls_token": torch.zeros(1, 1, 8)}, folder / "hub/model.safetensors")
    return folder / "hub"


def file_of_a_folder(folder: Path) -> Path:
    return without_config(folder) / "model.safetensors"


def other_architecture(folder: Path) -> Path:
    without_config(folder)
    (folder / "hub/config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder / "hub"


def half_a_configuration(folder: Path) -> Path:
    without_config(folder)
    (folder / "hub/config.json").write_text(json.dumps({"model_type": "vit", "image_size": 32}))
    return folder / "hub"


def list_of_weights(folder: Path) -> Path:
    torch.save({"state_dict": [1], "mae_lightning": task().card().to_dict()}, folder / "list.ckpt")
    return folder / "list.ckpt"


def changed_keys(folder: Path) -> Path:
    one = Classification("nano/4", num_classes=3, **IMAGES)
    state = one.state_dict()
    state["model.surplus"] = state.pop("model.blocks.1.norm1.bias")
    torch.save({"state_dict": state, "mae_lightning": one.card().to_dict()}, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def no_weights(folder: Path) -> Path:
    torch.save({"epoch": 3, "lr": 0.1}, folder / "notes.pth")
    return folder / "notes.pth"


def convnet(folder: Path) -> Path:
    torch.save({"conv1.weight": torch.zeros(3, 3)}, folder / "resnet.pth")
    return folder / "resnet.pth"


def rebuild(path):
    return build_masked(completed(open_weights(path)))


def start(**options):
    return lambda path: load_pretrained(task(**options).model, path)


WRONG = {
    "an encoder alone, asked to draw": (
        encoder_alone,
        rebuild,
        r"without a decoder; what reconstructs is a pretraining",
    ),
    "a deeper model": (
        lambda f: save(task(), f / "a.ckpt"),
        start(encoder=ViTSize(96, 7, 3, 4)),
        r"missing encoder\.blocks\.6\.\*",
    ),
    "another patch size": (
        lambda f: save(task(), f / "a.ckpt"),
        start(encoder="nano/8"),
        r"proj\.weight is \[96, 1, 4, 4\], the model's is \[96, 1, 8, 8\]",
    ),
    "another channel count": (
        lambda f: save(task(), f / "a.ckpt"),
        start(num_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3),
        r"is \[96, 1, 4, 4\], the model's is \[96, 3, 4, 4\]",
    ),
    "half a configuration": (half_a_configuration, load_encoder, r"damaged or none of a ViT: KeyError\('num_attention"),
    "a list of weights": (list_of_weights, load_encoder, r"list\.ckpt holds no weights: a \.ckpt of this package"),
    "truncated": (cut, load_encoder, r"cut\.ckpt is damaged or none"),
    "truncated safetensors": (cut_safetensors, load_encoder, r"cut\.safetensors is damaged or no safetensors file"),
    "a malicious pickle": (malicious, load_encoder, r"evil\.pth holds more than tensors and plain values"),
    "a malicious archive": (malicious_archive, load_encoder, r"evil\.ckpt holds more than tensors and plain values"),
    "text": (
        written("text.ckpt", "hello"),
        load_encoder,
        r"text\.ckpt is damaged or none, a whole \.ckpt or \.pth is needed",
    ),
    "empty": (written("empty.pth", ""), load_encoder, r"empty\.pth is damaged or none"),
    "a folder without config": (
        without_config,
        load_encoder,
        r"hub has no config\.json; a Hugging Face folder has one",
    ),
    "a file out of its folder": (file_of_a_folder, load_encoder, r"is a Hugging Face file, .* give its folder"),
    "another architecture": (other_architecture, load_encoder, r"of a 'bert'; those of vit_mae and vit are read"),
    "keys missing and left over": (changed_keys, load_encoder, r"missing blocks\.1\.norm1\.bias; unexpected surplus"),
    "no weights": (no_weights, load_encoder, r"holds no weights: a \.ckpt of this package"),
    "a convolutional network": (
        convnet,
        load_encoder,
        r"holds no vision transformer, its first tensor is 'conv1\.weight'",
    ),
    "a program": (written("a.onnx", "x"), read_encoder, r"a program for ONNX, .* give the checkpoint it was made from"),
    "a misspelt name": (lambda f: "vit_bse_patch16_224", load_encoder, r"is neither a checkpoint .* nor a timm model"),
}


@pytest.mark.parametrize("forced", [False, True], ids=["", "forced"])
@pytest.mark.parametrize("case", WRONG)
def test_one_line_each(case, forced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    make, use, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        use(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_the_malicious_pickle_would_execute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(malicious(tmp_path).read_bytes())
    assert Path("executed").exists()


def test_a_missing_file_is_named(tmp_path):
    for name in ("none.ckpt", "none.safetensors"):
        with pytest.raises(FileNotFoundError, match=rf"checkpoint .*{name} does not exist"):
            load_encoder(tmp_path / name)


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    weights = completed(open_weights(save(task(), tmp_path / "a.ckpt")))
    monkeypatch.setattr("mae_lightning.weights.converting.largest_difference", lambda *_: 1e-3)
    with pytest.raises(
        ValueError, match=r"differ by 1\.0e-03 of the greatest value, and 1e-05 is allowed; nothing was"
    ):
        convert(weights, "hf", tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_wrong_tensor_in_a_written_file_is_found(tmp_path, monkeypatch):
    weights = completed(open_weights(save(task(), tmp_path / "a.ckpt")))

    def swapped(weights):
        state = to_official({**{f"encoder.{k}": v for k, v in weights.encoder.items()}, **weights.decoder})
        state["blocks.0.norm1.bias"] = state["blocks.0.norm1.bias"] + 0.1
        return state

    monkeypatch.setattr("mae_lightning.weights.converting.official_state", swapped)
    with pytest.raises(ValueError, match="gives other outputs as the official layout"):
        convert(weights, "official", tmp_path / "official.pth")
    assert not (tmp_path / "official.pth").exists()


@pytest.mark.parametrize(
    ("settings", "to"),
    [
        ({"mask_token_in_encoder": True}, ("official", "hf")),
        ({"mask_token_in_encoder": "bert"}, ("official", "hf")),
        ({"loss_on": "all"}, ("hf",)),
    ],
    ids=str,
)
def test_a_model_that_is_another_there_is_refused(tmp_path, settings, to):
    """Where its tensors would fit by their names and shapes."""
    decoder = TransformerDecoder(depth=1, dim=96, num_heads=3)  # as wide as the encoder
    weights = completed(
        open_weights(save(MAEPretraining("nano/4", decoder, **IMAGES, **settings), tmp_path / "a.ckpt"))
    )
    assert {target for target in ("official", "hf") if obstacle(weights, target)} == set(to)
    for target in to:
        with pytest.raises(ValueError, match=r"mask tokens in its encoder.*: use --encoder-only"):
            convert(weights, target, tmp_path / f"x{FORMATS[target].suffix}")
    convert(weights.without_decoder, "official", tmp_path / "encoder.pth")


def test_nothing_is_overwritten_and_names_end_rightly(tmp_path):
    weights = completed(open_weights(save(task(), tmp_path / "a.ckpt")))
    (tmp_path / "there.pth").touch()
    with pytest.raises(ValueError, match=r"there\.pth is already there; nothing is overwritten"):
        convert(weights, "official", tmp_path / "there.pth")
    with pytest.raises(ValueError, match=r"a file of timm ends in \.safetensors"):
        convert(weights, "timm", tmp_path / "b.pth")


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mae_lightning.weights.exported.find_spec", lambda name: None)
    weights = completed(open_weights(save(task(), tmp_path / "a.ckpt")))
    with pytest.raises(ValueError, match=r"pip install 'mae-lightning\[export\]'"):
        convert(weights, "onnx", tmp_path / "a.onnx")


def test_what_is_not_a_number_never_passes_for_equal():
    one = {"a": torch.ones(2), "b": torch.ones(2)}
    assert largest_difference(one, one) == 0
    assert math.isnan(largest_difference(one, one | {"a": torch.tensor([1.0, math.nan])}))
    assert largest_difference(one, {"a": torch.ones(2)}) == math.inf
