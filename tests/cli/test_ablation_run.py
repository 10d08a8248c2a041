"""Ablation switches through the program: what is fitted before training, what a checkpoint keeps."""

from pathlib import Path

import pytest
import torch

from mae_lightning.data import ShardDataModule
from mae_lightning.models import PatchPCA, patch_sums, patchify

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of Lightning on torch 2.15
OVERLAYS = ("target_pca", "mask_block", "mask_token_bert", "augmentation_none")


def test_components_are_fitted_on_training_crops_once_and_kept(cli, here, small, shard, monkeypatch):
    overlays = [f"--config=ablations/{name}" for name in OVERLAYS]
    options = (*small, *overlays, "--run.name=run", "--model.init_args.target.init_args.num_images=16")
    outcome = cli("fit", *options)
    assert outcome.code == 0, outcome.err
    assert "PatchPCA, loss on masked patches" in outcome.out
    assert "12 of 49 patches of 4 x 4 kept (BlockMasking, ratio 0.75)" in outcome.out
    assert len(list(Path("runs/run/pictures").glob("*.png"))) == 1

    checkpoint = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)
    state, card = checkpoint["state_dict"], checkpoint["mae_lightning"]
    assert card["target"]["init_args"] == {"share": 0.125, "whiten": False, "num_images": 16}
    assert card["masked_model"] == {"loss_on": "masked", "mask_token_in_encoder": "bert"}
    data = ShardDataModule(train=str(shard), image_size=28, global_batch_size=16)
    images = data.samples("train", list(range(16)))["image"] / 255
    normalised = (images - state["normalize.mean"]) / state["normalize.std"]
    expected = PatchPCA()
    expected.prepare((28, 28), (4, 4), 1)
    expected.fit(*patch_sums(patchify(normalised, (4, 4))))
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(state[f"model.target.{name}"], value, rtol=1e-4, atol=1e-4)

    monkeypatch.delattr(PatchPCA, "fit")
    again = cli("fit", *options, "--trainer.max_epochs=2")
    assert again.code == 0, again.err
    resumed = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(resumed["model.target.components"], state["model.target.components"])


def test_a_trained_tokenizer_becomes_a_target(cli, here, small, shard):
    recipe = [
        "--config=quickstart/tokenizer",
        *(option for option in small if "=" in option and "init_args." not in option),
    ]
    recipe = [option for option in recipe if option != "--config=quickstart/pretrain"]
    data = [option for option in small if option.startswith("--data.")]
    outcome = cli("fit", *recipe, *data, "--model.init_args.warmup_epochs=0", "--model.init_args.num_codes=9")
    assert outcome.code == 0, outcome.err
    assert "tokenizer  runs/quickstart-tokenizer/tokenizer.safetensors" in outcome.out

    outcome = cli("fit", *small, "--config=ablations/target_tokens", "--run.name=tokens")
    assert outcome.code == 0, outcome.err
    assert "Tokens, loss on masked patches" in outcome.out
    assert not Path("runs/tokens/pictures").exists()
    state = torch.load("runs/tokens/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["model.decoder_pred.weight"].shape == (9, 8)
