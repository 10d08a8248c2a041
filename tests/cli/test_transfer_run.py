"""From the quickstart's checkpoint to a classifier, at the size of a toy."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of Lightning on torch 2.15
CHECKPOINT = "runs/quickstart-pretrain/checkpoints/last.ckpt"
TOY = (
    "--run.wandb=off",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=12",
    "--trainer.limit_val_batches=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--data.init_args.num_workers=0",
    "--data.init_args.global_batch_size=8",
    "--model.init_args.warmup_epochs=0",
    "--model.init_args.encoder={dim: 8, depth: 1, num_heads: 1, patch_size: 4}",
)
AVERAGE = "--trainer.callbacks=[{class_path: mae_lightning.callbacks.WeightEMA, init_args: {decay: %s}}]"


@pytest.fixture
def pretrained(cli, small):
    outcome = cli("fit", *small)
    assert outcome.code == 0, outcome.err
    return outcome


def test_each_run_names_the_next(cli, pretrained, here):
    assert f"recipes/quickstart/finetune.yaml --model.init_args.init_from={CHECKPOINT}" in pretrained.out
    average, counts = AVERAGE % 0.5, "--model.init_args.confusion_matrix=true"
    outcome = cli("fit", "--config=quickstart/finetune", *TOY, average, counts)
    assert outcome.code == 0, outcome.err
    assert f"encoder of {CHECKPOINT}; fresh final norm and head" in outcome.out
    assert "selected on  nothing: the last epoch's weights" in outcome.out
    assert "evaluate runs/quickstart-finetune/checkpoints/last.ckpt --data fashion_mnist" in outcome.out

    with (here / "runs/quickstart-finetune/confusion.csv").open() as file:
        title, *rows = csv.reader(file)
    assert title[0] == "truth"
    assert [row[0] for row in rows] == title[1:]
    assert sum(int(count) for row in rows for count in row[1:]) == 16

    saved = torch.load(here / "runs/quickstart-finetune/checkpoints/last.ckpt", weights_only=True)
    assert saved["mae_lightning"]["objective"] == "classification"
    assert saved["mae_lightning"]["class_names"] == title[1:]
    assert not torch.equal(saved["state_dict"]["model.head.weight"], saved["current_model_state"]["model.head.weight"])


def test_an_average_longer_than_the_run_is_refused(cli):
    outcome = cli("fit", "--config=quickstart/scratch", *TOY, AVERAGE % 0.9999)
    assert outcome.code == 2
    assert "a weight average of decay 0.9999 needs 50000 steps and this run has 12" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_a_linear_probe_runs_and_another_encoder_is_named(cli, pretrained):
    assert cli("fit", "--config=quickstart/linear_probe", *TOY).code == 0
    outcome = cli("fit", "--config=quickstart/linear_probe", *TOY[:-1], "--run.name=other")
    assert outcome.code == 2
    assert f"{CHECKPOINT} holds the encoder" in outcome.err
    assert "does not fit the model" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_unlabelled_images_are_refused(cli, here):
    (here / "photos").mkdir()
    for number in range(8):
        Image.fromarray(np.full((28, 28), 20 * number, np.uint8)).save(here / "photos" / f"{number}.png")
    data = ("--data.init_args.train=photos", "--data.init_args.val=photos")
    outcome = cli("fit", "--config=quickstart/scratch", *TOY, *data)
    assert outcome.code == 2
    assert "classification needs labels, and the data has none" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
