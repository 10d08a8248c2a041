"""The official layout's list of names and shapes is a contract, and nothing is lost on the way there and back."""

import json
from pathlib import Path

import pytest
import torch
from weights_making import classification, pretraining, saved

from mae_lightning import load_encoder
from mae_lightning.models import MaskedAutoencoder
from mae_lightning.weights.building import build_masked
from mae_lightning.weights.content import Said, completed
from mae_lightning.weights.converting import convert
from mae_lightning.weights.official import from_official, to_official
from mae_lightning.weights.opening import open_weights

KEYS = json.loads(Path(__file__).with_name("official_mae_keys.json").read_text())
SAID = {"num_heads": 4, "decoder_num_heads": 2, "made_for": (16, 24), "mean": (0.3,), "std": (0.4,)}


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("mae_vit_base_patch16", "base/16"), ("mae_vit_large_patch16", "large/16"), ("mae_vit_huge_patch14", "huge/14")],
)
def test_names_and_shapes(name, encoder):
    with torch.device("meta"):
        model = MaskedAutoencoder(encoder, image_size=(224, 224))
        theirs = {key: torch.empty(shape) for key, shape in KEYS[name].items()}
    official = to_official(model.state_dict())
    assert {key: list(value.shape) for key, value in official.items()} == KEYS[name]
    model.load_state_dict(from_official({"model": theirs}), assign=True)


@pytest.fixture
def official(tmp_path):
    task = pretraining()
    convert(completed(open_weights(saved(task, tmp_path / "a.ckpt"))), "official", tmp_path / "official.pth")
    return task, tmp_path / "official.pth"


def test_there_and_back_is_bit_exact(official, tmp_path):
    task, path = official
    back = build_masked(completed(open_weights(path)))
    assert all(torch.equal(value, task.model.state_dict()[name]) for name, value in back.state_dict().items())
    assert completed(open_weights(path)).known == task.card()
    for step, (to, name) in enumerate([("safetensors", "b.safetensors"), ("official", "c.pth")]):
        convert(completed(open_weights(path if step == 0 else tmp_path / "b.safetensors")), to, tmp_path / name)
    first, last = (torch.load(file, weights_only=True) for file in (path, tmp_path / "c.pth"))
    assert first["model"].keys() == last["model"].keys()
    assert all(torch.equal(value, last["model"][name]) for name, value in first["model"].items())
    assert first["mae_lightning"] | {"encoder": 0} == last["mae_lightning"] | {"encoder": 0}


def test_a_file_that_says_nothing_of_itself(official, tmp_path):
    task, path = official
    torch.save({"model": torch.load(path, weights_only=True)["model"], "epoch": 799}, tmp_path / "plain.pth")
    weights = completed(open_weights(tmp_path / "plain.pth"), Said(**SAID))
    assert (weights.format, weights.trained) == ("official", {"epoch": 799})
    model, x = build_masked(weights), torch.rand(2, 1, 16, 24)
    assert torch.equal(model.features(x), task.model.features(x))
    assert weights.assumed == ("normalised pixels as the target",)
    for missing, option in [
        ("num_heads", "--num-heads"),
        ("decoder_num_heads", "--decoder-num-heads"),
        ("made_for", "--made-for"),
        ("mean", "--mean"),
    ]:
        with pytest.raises(ValueError, match=option):
            completed(open_weights(tmp_path / "plain.pth"), Said(**{**SAID, missing: None}))


@torch.no_grad()
@pytest.mark.parametrize("pool", ["mean", "class"])
def test_fine_tuned(pool, tmp_path):
    task, x = classification(pool=pool), torch.rand(2, 1, 16, 24)
    convert(completed(open_weights(saved(task, tmp_path / "a.ckpt"))), "official", tmp_path / "tuned.pth")
    content = torch.load(tmp_path / "tuned.pth", weights_only=True)
    norms = {name for name in content["model"] if name.startswith(("norm.", "fc_norm."))}
    norm = "fc_norm" if pool == "mean" else "norm"
    assert norms == {f"{norm}.weight", f"{norm}.bias"}
    torch.save({"model": content["model"]}, tmp_path / "plain.pth")
    options = {key: value for key, value in SAID.items() if not key.startswith("decoder")}
    assert torch.equal(load_encoder(tmp_path / "plain.pth", head=True, **options)(x), task.model(x))
