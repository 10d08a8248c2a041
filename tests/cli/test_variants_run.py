"""The named faster variants through the program, together: trained, drawn, kept in the config, not changed half-way."""

from pathlib import Path

import pytest
import torch
import yaml

from mae_lightning.weights.building import build_masked
from mae_lightning.weights.opening import open_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of Lightning on torch 2.15


def test_variants_train_together(cli, here, small):
    options = [
        *(option for option in small if "max_epochs" not in option),
        "--config=variants/crossmae",
        "--config=variants/repeated_augmentation",
        "--model.init_args.decoder.init_args.depth=2",
        "--data.init_args.image_size_by_epoch={1: 16}",
        "--trainer.callbacks+=mae_lightning.callbacks.ActivationCheckpointing",
        "--trainer.check_val_every_n_epoch=2",
        "--run.name=run",
    ]
    outcome = cli("fit", *options, "--trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    assert "x 1 devices; 2 crops of each image" in outcome.out
    assert "16 x 16 from epoch 1" in outcome.out
    checkpoint = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)
    decoder = checkpoint["mae_lightning"]["decoder"]
    assert decoder["class_path"] == "mae_lightning.models.cross_decoder.CrossAttentionDecoder"
    assert decoder["init_args"]["inter_block"]
    assert checkpoint["state_dict"]["model.decoder_pos_embed"].shape == (1, 50, 8)
    assert len(list(Path("runs/run/pictures").glob("*.png"))) == 1

    model = build_masked(open_weights("runs/run/checkpoints/last.ckpt"))
    assert torch.equal(model.mixture.weights, checkpoint["state_dict"]["model.mixture.weights"])
    again = cli("fit", "--config=runs/run/config.yaml", "--print_config")
    assert again.code == 0, again.err
    data = yaml.safe_load(again.out)["data"]["init_args"]
    assert (data["repeats"], {int(k): v for k, v in data["image_size_by_epoch"].items()}) == (2, {1: 16})
    refused = cli("fit", *options, "--trainer.max_epochs=3", "--data.init_args.image_size_by_epoch={1: 12}")
    assert refused.code == 2
    assert "data.image_size_by_epoch" in refused.err
