"""inspect, convert and predict as they are typed."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from image_making import picture, write_files

from mae_lightning.data.samples import decode
from mae_lightning.models import TransformerDecoder
from mae_lightning.tasks import Classification, MAEPretraining

IMAGES = {"image_size": (28, 28), "num_channels": 1, "mean": (0.5,), "std": (0.2,)}


def saved(task, path, **more):
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict(), **more}, path)
    return task.eval()


SIZES = [
    (["--patch-size", "0"], "--patch-size 0: at least 1"),
    (["--patch-size", "4", "-4"], "--patch-size 4 -4: at least 1"),
    (["--image-size", "0", "28"], "--image-size 0 28: at least 1"),
    (["--channels", "0"], "--channels 0: at least 1"),
]


@pytest.fixture
def mae(here):
    task = MAEPretraining("nano/4", TransformerDecoder(depth=1, dim=16, num_heads=2), **IMAGES)
    return saved(task, here / "mae.ckpt", epoch=7, global_step=1200)


@pytest.fixture
def classifier(here):
    task = Classification("nano/4", num_classes=3, class_names=("ant", "bee", "cat"), **IMAGES)
    torch.nn.init.normal_(task.model.head.weight)
    return saved(task, here / "classifier.ckpt")


def test_inspect(cli, mae, classifier):
    outcome = cli("inspect", "mae.ckpt")
    assert outcome.code == 0, outcome.err
    lines = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in outcome.out.splitlines() if "  " in line}
    assert lines["holds"] == "masked autoencoder, encoder and decoder"
    assert lines["trained"] == "epoch 7, step 1,200"
    assert lines["image size"] == "28, 28"
    assert lines["target"] == "NormalizedPixels"
    assert "cannot predict classes: it has no classes; fine-tune it first" in outcome.out
    uses = json.loads(cli("inspect", "classifier.ckpt", "--json").out)["uses"]
    assert {name for name, reason in uses.items() if reason is not None} == {"reconstruct", "convert to hf"}
    assert "pretraining run's checkpoint" in uses["reconstruct"]
    about = json.loads(cli("inspect", "classifier.ckpt", "--json").out)["about"]
    assert about["classes"] == ["ant", "bee", "cat"]
    assert about["parameters"]["head"] == 96 * 3 + 3


def test_inspect_says_what_a_file_does_not_say(cli, mae, here):
    state = {
        name.removeprefix("encoder."): value for name, value in mae.model.state_dict().items() if "encoder." in name
    }
    torch.save({"model": state}, here / "bare.pth")
    outcome = cli("inspect", "bare.pth")
    assert outcome.code == 0, outcome.err
    assert "can be used to: nothing here" in outcome.out
    assert "add --mean and --std" in outcome.out
    outcome = cli("inspect", "bare.pth", "--mean", "0.5", "--std", "0.2", "--json")
    assert json.loads(outcome.out)["uses"]["convert to timm"] is None


def test_convert_prints_what_it_did(cli, mae, here):
    outcome = cli("convert", "mae.ckpt", "--to", "hf", "--out", "folder", "--image-size", "32", "24")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "pos_embed computed anew from 7 x 7 to 8 x 6 patches (sin-cos)"
    assert lines[2].startswith("checked: tokens, feature, reconstruction differ by ")
    assert json.loads((here / "folder/config.json").read_text())["image_size"] == [32, 24]
    outcome = cli("convert", "folder", "--to", "official", "--out", "out.pth", "--encoder-only")
    assert outcome.code == 0, outcome.err
    assert "mask_token" not in torch.load(here / "out.pth", weights_only=True)["model"]
    colour = ("--encoder-only", "--channels", "3", "--mean", "0.5", "0.5", "0.5", "--std", "0.2", "0.2", "0.2")
    outcome = cli("convert", "mae.ckpt", "--to", "timm", "--out", "colour.safetensors", "--patch-size", "7", *colour)
    assert outcome.code == 0, outcome.err
    assert "patch filters for 3 channels made of those for 1" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "mae.ckpt", "--to", "hf"], "required: --out"),
        (["convert", "mae.ckpt", "--to", "hfx", "--out", "x"], "invalid choice: 'hfx'"),
        (
            ["convert", "mae.ckpt", "--to", "timm", "--out", "x.safetensors", "--channels", "3"],
            "needs --mean and --std",
        ),
        (
            [
                "convert",
                "mae.ckpt",
                "--to",
                "timm",
                "--out",
                "x.safetensors",
                "--encoder-only",
                "--channels",
                "1",
                "--mean",
                "0.5",
                "--std",
                "0",
            ],
            "std (0.0,) must be above 0",
        ),
        (
            ["predict", "mae.ckpt", "--data", "SHARD", "--out", "x.csv"],
            "holds an encoder without classes; fine-tune it",
        ),
        *((["convert", "mae.ckpt", "--to", "hf", "--out", "x", *size], message) for size, message in SIZES),
        (["convert", "mae.ckpt", "--to", "hf", "--out", "mae.ckpt/a/b"], "mae.ckpt is a file, not a folder"),
        (["predict", "mae.ckpt", "--data", "SHARD", "--out", "mae.ckpt/a.csv"], "mae.ckpt is a file, not a folder"),
        (
            ["predict", "mae.ckpt", "--data", "SHARD", "--out", "x.csv", "--batch-size", "0"],
            "--batch-size 0: at least 1",
        ),
        (["predict", "mae.ckpt", "--data", "SHARD", "--out", "x.txt"], "a .parquet or a .csv file"),
        (["predict", "mae.ckpt", "--data", "SHARD", "--out", "x.csv", "--what", "features", "--layer", "7"], "1 to 6"),
    ],
)
def test_mistakes_are_one_line(cli, mae, shard, arguments, message):
    outcome = cli(*(str(shard) if argument == "SHARD" else argument for argument in arguments))
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def pixels(shard: Path) -> torch.Tensor:
    """The shard's images in order, read without the package's loader."""
    import tarfile

    with tarfile.open(shard) as tar:
        members = [member for member in tar if member.name.endswith(".png")]
        return torch.stack([decode(tar.extractfile(member).read(), "png", 1) for member in members])


def test_predict_writes_each_sample_once_with_its_key(cli, classifier, shard, here):
    for out in ("a.parquet", "a.csv"):
        outcome = cli(
            "predict", "classifier.ckpt", "--data", str(shard), "--out", out, "--batch-size", "5", "--device", "cpu"
        )
        assert outcome.code == 0, outcome.err
    table = pyarrow.parquet.read_table(here / "a.parquet").to_pydict()
    with torch.no_grad():
        expected = classifier(pixels(shard)).softmax(1)
    assert table["key"] == [f"{index:04d}" for index in range(16)]
    assert set(table["shard"]) == {shard.name}
    assert table["label"] == [index % 2 for index in range(16)]
    np.testing.assert_allclose(np.array(table["probabilities"]), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert table["class"] == expected.argmax(1).tolist()
    assert table["class_name"] == [("ant", "bee", "cat")[index] for index in table["class"]]
    with (here / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == table["key"]
    assert float(rows[3]["probabilities_2"]) == pytest.approx(table["probabilities"][3][2])
    outcome = cli("predict", "classifier.ckpt", "--data", str(shard), "--out", "a.csv")
    assert "already there" in outcome.err
    assert sorted(path.name for path in here.iterdir()) == ["a.csv", "a.parquet", "classifier.ckpt"]


@pytest.mark.parametrize(
    ("folders", "labels"), [(("bee", "cat"), [1, 2]), (("ant", "bee", "cat"), [0, 1, 2]), (("bee", "dog"), [0, 1])]
)
def test_predict_counts_labels_as_the_model_counts_its_classes(cli, classifier, here, folders, labels):
    """Where the folder holds some of its classes; classes of others' count by themselves."""
    write_files(here / "images", {f"{name}/a.png": picture(0, size=(28, 28)) for name in folders})
    outcome = cli("predict", "classifier.ckpt", "--data", "images", "--out", "a.csv", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    with (here / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["label_name"], int(row["label"])) for row in rows] == list(zip(folders, labels, strict=True))
    assert rows[0]["class_name"] == ("ant", "bee", "cat")[int(rows[0]["class"])]


def test_predict_without_names_where_they_are_not_all_there(cli, shard, here):
    saved(Classification("nano/4", num_classes=3, class_names=("ant",), **IMAGES), here / "classifier.ckpt")
    outcome = cli("predict", "classifier.ckpt", "--data", str(shard), "--out", "a.csv", "--top", "3")
    assert outcome.code == 0, outcome.err
    assert "class_name" not in (here / "a.csv").read_text()


def test_predict_top_and_features(cli, mae, classifier, shard, here):
    assert cli("predict", "classifier.ckpt", "--data", str(shard), "--out", "top.csv", "--top", "2").code == 0
    with (here / "top.csv").open() as file:
        row = next(csv.DictReader(file))
    assert list(row)[3:] == ["class_1", "class_name_1", "probability_1", "class_2", "class_name_2", "probability_2"]
    assert float(row["probability_1"]) >= float(row["probability_2"])
    features = {}
    for layer in ((), ("--layer", "6"), ("--layer", "2")):
        out = f"features{''.join(layer)}.parquet"
        outcome = cli("predict", "mae.ckpt", "--data", str(shard), "--out", out, "--what", "features", *layer)
        assert outcome.code == 0, outcome.err
        features[layer] = torch.tensor(pyarrow.parquet.read_table(here / out).to_pydict()["features"])
    encoder, x = mae.model.encoder, mae.normalize(pixels(shard))
    with torch.no_grad():
        tokens = encoder.norm_pre(encoder._pos_embed(encoder.patch_embed(x)))
        after_two = encoder.blocks[:2](tokens)
    torch.testing.assert_close(features["--layer", "2"], after_two[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[()], mae.model.features(x).detach(), rtol=1e-4, atol=1e-5)
    assert features["--layer", "6"].shape == (16, 96)
