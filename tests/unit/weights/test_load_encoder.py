import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image

from mae_lightning import load_encoder
from mae_lightning.evaluation.encoders import open_encoder
from mae_lightning.models import TransformerDecoder
from mae_lightning.tasks import Classification, MAEPretraining
from mae_lightning.weights.content import completed
from mae_lightning.weights.converting import FORMATS, convert
from mae_lightning.weights.opening import open_weights

IMAGES = {"image_size": (28, 28), "num_channels": 1, "mean": (0.3,), "std": (0.25,)}


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = MAEPretraining("nano/4", TransformerDecoder(depth=1, dim=16, num_heads=2), **IMAGES)
    path = tmp_path / "runs/quickstart-pretrain/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict()}, path)
    return task


README = Path(__file__).parents[3] / "README.md"


@pytest.mark.parametrize("where", ["docstring", "README"])
def test_the_documented_example_runs(task, where):
    if where == "docstring":
        documented = load_encoder.__doc__.split("Example::")[1].split("Args:")[0]
    else:
        (documented,) = re.findall(r"```python\n(import timm\n.*?)```", README.read_text(), re.DOTALL)
    picture = Image.radial_gradient("L").convert("RGB")
    names = {"picture": picture}
    with torch.no_grad():
        exec(textwrap.dedent(documented), names)
    assert [tuple(one.shape) for one in names["maps"]] == [(1, 96, 7, 7)] * 2
    pixels = torch.tensor(list(picture.convert("L").resize((28, 28), Image.Resampling.BICUBIC).tobytes()))
    normalized = (pixels.view(1, 1, 28, 28) / 255 - 0.3) / 0.25
    torch.testing.assert_close(names["images"], normalized)
    torch.testing.assert_close(names["feature"], task.model.features(normalized).detach(), rtol=1e-5, atol=1e-5)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, mae_lightning; print({'torch', 'timm'} & set(sys.modules)); mae_lightning.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n"
    assert "AttributeError: module 'mae_lightning' has no attribute 'nothing'" in done.stderr


def test_fresh_weights_are_others(task):
    path = "runs/quickstart-pretrain/checkpoints/last.ckpt"
    fresh, trained = load_encoder(path, pretrained=False), load_encoder(path)
    assert not torch.equal(fresh.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("to", [None, "safetensors", "timm", "official"])
def test_what_a_file_says_itself_is_not_said_again(task, tmp_path, to):
    path = Path("runs/quickstart-pretrain/checkpoints/last.ckpt")
    if to is not None:
        weights, path = completed(open_weights(path)), tmp_path / f"a{FORMATS[to].suffix}"
        convert(weights, to, path)
    for said in ({"mean": (0.5,), "std": (0.5,)}, {"num_heads": 4}):
        with pytest.raises(ValueError, match=r"says of itself what it is; leave heads, sizes, mean and deviation out"):
            load_encoder(path, **said)


def test_a_folder_of_theirs_takes_what_it_does_not_say(task, tmp_path):
    convert(completed(open_weights("runs/quickstart-pretrain/checkpoints/last.ckpt")), "hf", tmp_path / "folder")
    for said in ({"num_heads": 4}, {"decoder_num_heads": 4}, {"made_for": (14, 56)}):
        ((name, value),) = said.items()
        with pytest.raises(ValueError, match=rf"folder says {name} .*, not {re.escape(str(value))}; leave it out"):
            load_encoder(tmp_path / "folder", **said)
    settings = load_encoder(tmp_path / "folder", num_heads=3, mean=(0.5,), std=(0.1,)).pretrained_cfg
    assert (settings["mean"], settings["std"]) == ((0.5,), (0.1,))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mean": (0.5,)}, r"mean \(0.5,\) and std None .* go together"),
        ({"std": (0.5,)}, r"mean None and std \(0.5,\) .* go together"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, r"go together, one number of each for every channel"),
        ({"mean": (0.5,), "std": (0.0,)}, r"std \(0.0,\) must be above 0"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, r"bare.pth has 1 channels, and the mean has 2"),
    ],
)
def test_mean_and_deviation_go_together(task, tmp_path, said, message):
    torch.save(task.model.encoder.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "bare.pth", **said)


def test_every_format_is_judged_alike(task, tmp_path):
    weights = completed(open_weights("runs/quickstart-pretrain/checkpoints/last.ckpt"))
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    expected = task.model.features(task.normalize(images)).detach()
    for to, out in (
        ("official", "a.pth"),
        ("hf", "folder"),
        ("timm", "b.safetensors"),
        ("safetensors", "c.safetensors"),
    ):
        convert(weights, to, tmp_path / out)
        encoder = open_encoder(str(tmp_path / out))
        torch.testing.assert_close(encoder.pool(encoder.tokens(images)), expected, rtol=1e-5, atol=1e-5)
        classifier = Classification("nano/4", num_classes=2, init_from=str(tmp_path / out), **IMAGES)
        assert torch.equal(classifier.model.blocks[2].mlp.fc1.bias, task.model.encoder.blocks[2].mlp.fc1.bias)


def test_raw_pixels_are_the_baseline_of_an_evaluation():
    encoder = open_encoder("pixels", image_size=(4, 6))
    images = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8)
    pooled = encoder.pool(encoder.tokens(images))
    torch.testing.assert_close(pooled, images.flatten(1) / 127.5 - 1)
    assert open_encoder("pixels").image_size == (32, 32)
    with pytest.raises(ValueError, match="no class token"):
        open_encoder("pixels", feature="class")
