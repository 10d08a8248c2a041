import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mae_lightning.commands import OneLineParser, evaluate
from mae_lightning.commands.evaluate import _manifests, add_arguments, format_table
from mae_lightning.evaluation.attentive import attentive_probe
from mae_lightning.evaluation.protocols import READING_KNN
from mae_lightning.models import TransformerDecoder
from mae_lightning.tasks import Classification, MAEPretraining

IMAGES = {"image_size": (16, 16), "num_channels": 1, "mean": (0.5,), "std": (0.2,)}


@pytest.fixture
def images(here):
    """Three classes of grey noise about a level of their own: 10 images a class to train on, 5 to judge on."""
    random = np.random.RandomState(0)
    for split, count in (("train", 10), ("val", 5)):
        for label, level in enumerate((60, 120, 180)):
            folder = here / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = (level + 10 * random.randn(16, 16)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return here


@pytest.fixture
def checkpoint(here):
    """A run's checkpoint of a small masked autoencoder."""
    task = MAEPretraining(encoder="nano/4", decoder=TransformerDecoder(depth=1, dim=32, num_heads=2), **IMAGES)
    path = here / "runs" / "mine" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict()}, path)
    return "runs/mine/checkpoints/last.ckpt"


FAST = ["--data", "images", "--fractions", "0.5", "1", "--wandb", "off", "--device", "cpu"]


def test_one_table_with_what_selected_beside_every_number(cli, images, checkpoint):
    outcome = cli("evaluate", checkpoint, *FAST, "--protocols", "knn", "few_shot", "linear", "--untrained")
    assert outcome.code == 0, outcome.err
    rows = [line for line in outcome.out.splitlines() if line.startswith(checkpoint) and "  " in line]
    assert len(rows) == 10  # two encoders, knn and linear at two fractions, few-shot
    assert all("nothing (" in row or "on a hold-out, 20% of these labels" in row for row in rows)
    assert READING_KNN in outcome.out
    results = json.loads((images / "runs/mine/evaluation/results.json").read_text())
    scores = results["scores"]
    assert {(score["protocol"], score["labels"]) for score in scores} == {
        ("knn", "50%"),
        ("knn", "100%"),
        ("few_shot", "5 a class"),
        ("linear (cached)", "50%"),
        ("linear (cached)", "100%"),
    }
    assert [score["num_labels"] for score in scores[:3]] == [15, 30, 15]
    assert len(scores[2]["details"]) == 10
    assert all(score["accuracy"] == 1.0 for score in scores if score["labels"] == "100%")  # the levels tell
    assert all(score["seconds"] > 0 for score in scores)


def test_what_few_labels_do_not_allow_is_a_line_and_the_rest_is_kept(cli, images, checkpoint):
    """One label a class cannot choose a learning rate, and four are no five shots."""
    for path in (images / "images/train").rglob("[4-9].png"):
        path.unlink()
    options = ["--protocols", "knn", "few_shot", "linear", "--out", "out", "--wandb", "off", "--device", "cpu"]
    outcome = cli("evaluate", checkpoint, "--data", "images", "--fractions", "0.001", "0.005", "1", *options)
    assert outcome.code == 0, outcome.err
    lines = [line.strip() for line in outcome.out.splitlines() if "not possible" in line]
    assert lines == [
        "few_shot, 5 a class: not possible: 5 labels a class: class 0 has 4; ask for 1 to that many",
        *(
            f"linear, {share}: not possible: nothing can be held out of 3 samples: every class has only one"
            " (--fractions)"
            for share in ("0.1%", "0.5%")
        ),
    ]
    scores = json.loads((images / "out/results.json").read_text())["scores"]
    assert [(score["protocol"], score["labels"]) for score in scores] == [
        ("knn", "0.1%"),
        ("knn", "0.5%"),
        ("knn", "100%"),
        ("linear (cached)", "100%"),
    ]
    outcome = cli(
        "evaluate",
        checkpoint,
        "--data",
        "images",
        "--fractions",
        "0.01",
        "--protocols",
        "linear",
        "--out",
        "none",
        *options[6:],
    )
    assert outcome.code == 2
    assert outcome.err.strip() == "error: no protocol was possible on these data; the lines above say why"


def test_results_of_another_evaluation_are_kept(cli, images, checkpoint):
    options = ("--protocols", "knn", "--out", "out")
    assert cli("evaluate", checkpoint, *FAST, *options).code == 0
    before = (images / "out/results.json").read_bytes()
    for other in (("pixels",), (checkpoint, "--seed", "1"), (checkpoint, "--untrained")):
        outcome = cli("evaluate", *other, *FAST, *options)
        assert outcome.code == 2
        name = {"pixels": "encoders"}.get(other[0], other[1][2:] if len(other) > 1 else "")
        assert f"out/results.json is of another evaluation ({name}) and is kept; name another --out" in outcome.err
    assert (images / "out/results.json").read_bytes() == before
    outcome = cli("evaluate", checkpoint, *FAST, *options, "--batch-size", "7")
    assert outcome.code == 0, outcome.err
    (images / "out/results.json").write_text("{}")
    assert "a file that evaluate did not write" in cli("evaluate", checkpoint, *FAST, *options).err


def test_every_encoder_is_found_before_any_work(cli, images, checkpoint):
    for arguments in (("resnet99",), ("--fractions", "1", "1.5"), ("--fractions", "0")):
        outcome = cli("evaluate", checkpoint, *arguments, "--data", "images", "--wandb", "off", "--device", "cpu")
        assert outcome.code == 2
        assert len(outcome.err.strip().splitlines()) == 1
        assert "features of" not in outcome.out


def test_the_results_keep_no_secret(tmp_path: Path) -> None:
    url = "https://me:canary@shards.example.org/manifest.json?token=canary"
    args = argparse.Namespace(data=url, val=None, out=tmp_path / "out", encoders=["base/16"])
    evaluate._write(args.out, args, [], "")
    written = (args.out / "results.json").read_text()
    assert "canary" not in written
    assert "shards.example.org/manifest.json" in written
    assert json.loads(written)["settings"]["encoders"] == ["base/16"]


def test_any_timm_encoder_under_the_same_protocol(cli, images, monkeypatch):
    few_steps = partial(attentive_probe, num_steps=2)
    monkeypatch.setattr("mae_lightning.evaluation.protocols.attentive_probe", few_steps)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: create(name, **options))
    options = ["--image-size", "32", "32", "--protocols", "knn", "attentive", "--fractions", "1", "--out", "out"]
    names = ["vit_tiny_patch16_224", "resnet18"]
    outcome = cli("evaluate", *names, "--data", "images", "--wandb", "offline", "--device", "cpu", *options)
    assert outcome.code == 0, outcome.err
    scores = json.loads((images / "out/results.json").read_text())["scores"]
    assert [(score["encoder"], score["protocol"]) for score in scores] == [
        (name, protocol) for name in names for protocol in ("knn", "attentive (cached)")
    ]
    assert list((images / "out").rglob("*.wandb"))


@pytest.mark.parametrize(("most", "counted"), [([], 30), (["--max-train", "3"], 15)])
def test_tokens_of_either_side_that_do_not_fit_in_memory(cli, images, checkpoint, most, counted, monkeypatch):
    """Thirty images to train on, fifteen to judge on; either may be the more."""
    monkeypatch.setattr(evaluate, "MAX_TOKEN_GIGABYTES", 1e-6)
    outcome = cli("evaluate", checkpoint, *FAST, "--protocols", "attentive", *most)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: the tokens of {counted} images for the attentive probe take")
    assert "features of" not in outcome.out


def test_a_classifier_is_judged_by_its_encoder(cli, images, here):
    task = Classification(encoder="nano/4", pool="mean", num_classes=9, **IMAGES)
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict()}, here / "classifier.ckpt")
    outcome = cli("evaluate", "classifier.ckpt", *FAST, "--protocols", "knn")
    assert outcome.code == 0, outcome.err
    assert (here / "runs/evaluation-classifier/table.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet99", "--data", "images"], "'resnet99' is neither a checkpoint (.ckpt, .pth, .pt) nor a timm model"),
        (["nowhere.ckpt", "--data", "images"], "checkpoint nowhere.ckpt does not exist"),
        (["runs/mine/checkpoints/last.ckpt", "--data", "images/val"], "has no held-out split"),
        (["runs/mine/checkpoints/last.ckpt", "--data", "images:val", "--val", "images/val"], "are the same samples"),
        (["runs/mine/checkpoints/last.ckpt", "--data", "images", "--image-size", "32", "32"], "leave --image-size out"),
        (["pixels", "--data", "images", "--batch-size", "0"], "--batch-size 0: at least 1"),
        (["pixels", "--data", "images", "--num-workers", "-1"], "--num-workers -1: at least 0"),
        (["pixels", "--data", "images", "--max-train", "0"], "--max-train 0: at least 1"),
        (["pixels", "--data", "images", "--image-size", "32", "-32"], "--image-size 32 -32: at least 1"),
        (["pixels", "--data", "images", "--device", "nope"], "--device nope: "),
        (["pixels", "--data", "images", "--device", "cuda:99"], "--device cuda:99: "),
        (["pixels", "--data", "images", "--out", "images/val/class0/0.png"], "0.png is a file, not a folder"),
        (["runs/mine/checkpoints/last.ckpt"], "the following arguments are required: --data"),
    ],
)
def test_mistakes_are_one_line(cli, images, checkpoint, arguments, message):
    device = [] if "--device" in arguments else ["--device", "cpu"]
    outcome = cli("evaluate", *arguments, "--wandb", "off", *device)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_a_table_lines_up():
    table = format_table([{"a": "long value", "b": "1"}, {"a": "x", "b": "22"}])
    assert table.splitlines() == ["a           b", "----------  --", "long value  1", "x           22"]


def test_some_classes_alone_are_judged_on():
    parser = OneLineParser()
    add_arguments(parser)
    train, held_out = _manifests(parser.parse_args(["pixels", "--data=fashion_mnist", "--classes=6-9"]))
    assert np.bincount(train.label).tolist() == [500] * 4
    assert np.bincount(held_out.label).tolist() == [100] * 4
