"""A Swin from pretraining to fine-tuning and evaluation, at the size of a toy."""

import csv
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of Lightning on torch 2.15
RUN = "runs/quickstart-swin"
TOY = (
    "--run.wandb=off",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
    "--data.init_args.num_workers=0",
    "--data.init_args.global_batch_size=8",
    "--model.init_args.warmup_epochs=0",
    "--model.init_args.encoder={dim: 8, depths: [1, 1, 2], num_heads: 1, patch_size: 2}",
)


def rows(name: str) -> list[dict[str, str]]:
    with Path(f"{RUN}/metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get(name)]


def test_pretrain_resume_fine_tune_evaluate(cli, here, shard, held_out):
    data = (f"--data.init_args.train={shard}", f"--data.init_args.val={shard}")
    outcome = cli("fit", "--config=quickstart/swin", *TOY, *data)
    assert outcome.code == 0, outcome.err
    assert "SimMIM, encoder SwinSize(dim=8" in outcome.out
    assert "6 of 16 patches of 8 x 8 kept (RandomMasking, ratio 0.6)" in outcome.out
    assert "x 8 / 512" in outcome.out
    assert "fit --config" in outcome.out
    assert f"finetune_swin.yaml --model.init_args.init_from={RUN}/checkpoints/last.ckpt" in outcome.out
    assert len(list((here / RUN / "pictures").glob("*.png"))) == 1
    (last,) = rows("val/loss")
    assert {"val/loss_zero", "val/loss_visible_mean", "val/psnr", "val/knn", "val/knn_untrained"} <= last.keys()
    assert "val/loss_position_mean" not in last

    again = cli("fit", "--config=quickstart/swin", *TOY, *data, "--trainer.max_epochs=2")
    assert again.code == 0, again.err
    assert "goes on after 1 epochs, 2 steps" in again.out
    assert len(rows("train/loss")) == 4

    checkpoint = f"{RUN}/checkpoints/last.ckpt"
    tuned = cli("fit", "--config=quickstart/finetune_swin", *TOY, *data)
    assert tuned.code == 0, tuned.err
    assert f"encoder of {checkpoint}; fresh head" in tuned.out
    saved = torch.load(here / "runs/quickstart-finetune_swin/checkpoints/last.ckpt", weights_only=True)
    assert saved["mae_lightning"]["encoder"]["depths"] == (1, 1, 2)

    options = ("--wandb", "off", "--device", "cpu", "--protocols", "knn", "--fractions", "1", "--untrained")
    judged = cli("evaluate", checkpoint, "--data", str(shard), "--val", str(held_out), *options)
    assert judged.code == 0, judged.err
    assert f"{checkpoint}, untrained" in judged.out


def test_images_that_do_not_divide_are_refused_in_one_line(cli):
    outcome = cli("fit", "--config=quickstart/swin", *TOY, "--data.init_args.image_size=28")
    assert outcome.code == 2
    assert "image size 28 x 28 is not a multiple of the 8 pixels of a token in Swin's last stage" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
