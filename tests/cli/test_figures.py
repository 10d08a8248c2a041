import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mae_lightning.commands.figures import NAMES, _by_settings
from mae_lightning.pictures import sheet as sheet_module
from mae_lightning.pictures.sheet import sheet
from mae_lightning.tasks import Classification
from mae_lightning.tracking.runs import read_run

CALLBACK = (
    "--trainer.callbacks+=mae_lightning.callbacks.FigurePictures",
    "--trainer.callbacks.which=[filters,features]",
)
FEW = ("--num-images", "2", "--num-statistics", "4", "--num-neighbours", "2", "--device", "cpu")


def test_every_figure_of_a_run_and_one_page(cli, here, small, shard):
    trained = cli("fit", *small, "--run.name=mine", *CALLBACK)
    assert trained.code == 0, trained.err
    drawn = sorted(path.name for path in (here / "runs/mine/pictures").glob("f*.png"))
    assert drawn == ["features-step0000002.png", "filters-step0000002.png"]

    outcome = cli("figures", "runs/mine/checkpoints/last.ckpt", f"--data={shard}", "--out=out", "--html", *FEW)
    assert outcome.code == 0, outcome.err
    expected = {f"{name}{suffix}" for name in NAMES for suffix in (".png", ".svg")} | {"index.html"}
    assert {path.name for path in (here / "out").iterdir()} == expected
    text = (here / "out/index.html").read_text()
    assert "not drawn" not in outcome.out + text.lower()
    linked = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\s\"'>]{1,20})|url\(([^)]{1,20})", text)
    assert all(target.startswith(("data:image/png", "#")) for pair in linked for target in pair if target)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert text.count("data:image/png") == len(NAMES) - 1 + 8  # a slider over eight ratios

    near = ("--which", "reconstructions", "--mask-ratio", "0.954", "--html")  # another of the slider's is 0.95
    outcome = cli("figures", "runs/mine/checkpoints/last.ckpt", f"--data={shard}", "--out=near", *near, *FEW)
    assert outcome.code == 0, outcome.err
    text = (here / "near/index.html").read_text()
    assert "95 % masked" in text
    assert "95.4 % masked" in text


@pytest.fixture
def classifier(here):
    """An encoder without a decoder, and images in folders."""
    for label, level in enumerate((80, 160)):
        for number in range(3):
            folder = here / "images" / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), level + number, np.uint8)).save(folder / f"{number}.png")
    task = Classification(encoder="nano/4", num_classes=2, image_size=(16, 16), num_channels=1, mean=(0.5,), std=(0.2,))
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict()}, here / "classifier.ckpt")
    return "classifier.ckpt"


def test_an_encoder_alone_draws_what_it_can_and_says_why_not(cli, here, classifier):
    outcome = cli("figures", classifier, "--data", "images", "--out", "out", *FEW)
    assert outcome.code == 0, outcome.err
    refused = {line.split(": ")[0]: line for line in outcome.out.splitlines() if ": not drawn: " in line}
    assert set(refused) == {"reconstructions", "ratios", "curves"}
    assert "without a decoder" in refused["ratios"]
    assert "name runs with --runs" in refused["curves"]
    assert {path.stem for path in (here / "out").iterdir()} == set(NAMES) - set(refused)


def test_only_an_image_of_the_bank_itself_is_no_neighbour_of_its_own(cli, here, classifier, monkeypatch):
    columns = []
    monkeypatch.setattr(sheet_module, "sheet", lambda found, *rest: columns.append(list(found)) or sheet(found, *rest))
    random = np.random.RandomState(0)
    for folder in ("one", "other"):  # of the same names, shapes and labels
        for name in "abc":
            (here / folder / "k").mkdir(parents=True, exist_ok=True)
            np.save(here / folder / "k" / f"{name}.npy", random.randint(0, 256, (16, 16, 1)).astype(np.uint8))
    for bank in ("one", "other"):
        few = ("--num-images", "2", "--num-neighbours", "3", "--device", "cpu", "--which", "neighbours")
        outcome = cli("figures", classifier, "--data", "one", "--bank", bank, "--out", "out", *few)
        assert outcome.code == 0, outcome.err
    assert [len(found) - 1 for found in columns] == [2, 3]


def test_runs_are_told_apart_by_their_settings_and_named_apart(here):
    """Trials whose stages have one name, with seeds of their own, each fine-tuned from its own pretraining."""

    def written(folder, seed, **arguments):
        (here / folder / "checkpoints").mkdir(parents=True)
        config = {"seed_everything": seed, "run": {"name": folder}, "model": {"init_args": arguments}}
        (here / folder / "config.yaml").write_text(yaml.safe_dump(config))
        (here / folder / "metrics.csv").write_text("step,val/loss\n1,0.5\n")

    for trial, seed, ratio in (("a0", 0, 0.5), ("a1", 1, 0.5), ("b0", 0, 0.75)):
        written(f"{trial}/pretrain", seed, mask_ratio=ratio, init_from=None)
        written(f"{trial}/finetune", seed, lr=1.0, init_from=f"{trial}/pretrain/checkpoints/last.ckpt")
    trials = ("a0", "a1", "b0")
    for stage in ("pretrain", "finetune"):
        groups = _by_settings([read_run(here / trial / stage) for trial in trials])
        assert {name: len(runs) for name, runs in groups.items()} == {f"a0/{stage} (2 seeds)": 2, f"b0/{stage}": 1}
    assert list(_by_settings([read_run(here / "a0/pretrain")], ", reference")) == ["pretrain, reference"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--which", "ratios"], "no figure could be drawn: ratios: classifier.ckpt holds"),
        (["--keys", "class0/0", "class9/0"], "images has no sample 'class9/0'; its keys are such as 'class0/0'"),
        (["--num-images", "0"], "--num-images 0: at least 1"),
        (["--out", "classifier.ckpt/figures"], "classifier.ckpt is a file, not a folder"),
        (["--which", "curves", "--runs", "."], ". is no run's folder: it has no config.yaml"),
    ],
)
def test_mistakes_are_one_line(cli, classifier, arguments, message):
    outcome = cli("figures", classifier, "--data", "images", "--out", "out", "--device", "cpu", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_held_out_images_alone_are_their_own_bank(cli, here, classifier):
    (here / "apart").mkdir()
    (here / "images").rename(here / "apart/val")
    outcome = cli("figures", classifier, "--data", "apart", "--which", "neighbours", "--out", "out", *FEW)
    assert outcome.code == 0, outcome.err
    assert (here / "out/neighbours.png").is_file()
