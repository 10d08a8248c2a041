import pytest
import torch
from torch import nn

from mae_lightning.models import MaskedAutoencoder, TransformerDecoder, ViTSize, build_classifier, sincos_positions
from mae_lightning.tasks import Classification, MAEPretraining
from mae_lightning.weights import load_encoder, load_pretrained, read_encoder
from mae_lightning.weights.building import build_masked, build_timm
from mae_lightning.weights.content import completed
from mae_lightning.weights.opening import open_weights
from mae_lightning.weights.resizing import fitting_positions, resized

SIZE = ViTSize(16, 2, 4, (4, 2))
IMAGES = {"image_size": (8, 12), "num_channels": 1, "mean": (0.3,), "std": (0.3,)}


def saved(task, path):
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict()}, path)
    return str(path)


@pytest.fixture
def mae(tmp_path):
    task = MAEPretraining(SIZE, TransformerDecoder(depth=1, dim=8, num_heads=2), **IMAGES)
    return saved(task, tmp_path / "mae.ckpt"), task


@pytest.fixture
def tuned(tmp_path):
    """A classifier with learned positions: a ramp over rows plus one over columns."""
    task = Classification(SIZE, num_classes=3, **IMAGES)
    rows, columns = torch.meshgrid(torch.arange(2.0), torch.arange(6.0), indexing="ij")
    ramp = (rows + 10 * columns).flatten().unsqueeze(1).expand(12, 16)
    with torch.no_grad():
        task.model.pos_embed[0, 1:] = ramp
        task.model.pos_embed[0, 0] = 7.0
    return saved(task, tmp_path / "tuned.ckpt"), task


def test_sincos_positions_are_computed_anew_and_learned_ones_resampled_in_two_dimensions():
    fixed = sincos_positions((2, 6), 16, 1).unsqueeze(0)
    new, how = fitting_positions(fixed, (2, 6), (4, 3))
    assert torch.equal(new[0], sincos_positions((4, 3), 16, 1))
    assert how == "computed anew from 2 x 6 to 4 x 3 patches (sin-cos)"
    rows = torch.arange(8.0).view(8, 1, 1).expand(8, 4, 4)
    learned = torch.cat([torch.full((1, 1, 4), 9.0), rows.reshape(1, 32, 4)], dim=1)
    new, how = fitting_positions(learned, (8, 4), (4, 2))
    grid = new[0, 1:].view(4, 2, 4)
    assert torch.equal(new[0, 0], torch.full((4,), 9.0))  # the class token has no place on the grid
    torch.testing.assert_close(grid[:, 0], grid[:, 1])  # what varies by rows alone still does
    torch.testing.assert_close(grid[1:3, 0, 0], torch.tensor([2.5, 4.5]), atol=0.2, rtol=0)
    assert how == "resampled from 8 x 4 to 4 x 2 patches (learned)"


def test_fine_tuning_and_pretraining_at_another_resolution_say_what_they_did(mae, tuned):
    path, task = mae
    model = build_classifier(SIZE, num_classes=3, image_size=(16, 20), num_channels=1)
    line = read_encoder(path).load_into(model)
    expected = "positions computed anew from 2 x 6 to 4 x 10 patches (sin-cos)"
    assert line == f"encoder of {path}; {expected}; fresh final norm and head"
    assert torch.equal(model.pos_embed[0], sincos_positions((4, 10), 16, 1))
    assert torch.equal(model.blocks[1].mlp.fc1.weight, task.model.encoder.blocks[1].mlp.fc1.weight)
    assert "resampled" in read_encoder(tuned[0]).load_into(model)
    assert torch.equal(model.pos_embed[0, 0], torch.full((16,), 7.0))

    larger = MaskedAutoencoder(
        SIZE, TransformerDecoder(depth=1, dim=8, num_heads=2), image_size=(16, 20), num_channels=1
    )
    assert load_pretrained(larger, path) == f"started from {path}: encoder and decoder; {expected}"
    assert torch.equal(larger.decoder_pos_embed[0], sincos_positions((4, 10), 8, 1))


def test_a_file_that_does_not_say_its_grid_counts_as_square(tmp_path):
    state = build_classifier("nano/4", num_classes=0, image_size=(16, 16), num_channels=1, norm_after_pool=False)
    nn.init.normal_(state.pos_embed)
    torch.save({"model": state.state_dict()}, tmp_path / "square.pth")
    model = build_classifier("nano/4", num_classes=3, image_size=(32, 16), num_channels=1)
    assert "resampled from 4 x 4 to 8 x 4 patches" in read_encoder(tmp_path / "square.pth").load_into(model)


def test_patches_and_channels_only_when_asked(mae):
    path, _ = mae
    weights = completed(open_weights(path))
    for options in ({"patch_size": (8, 4)}, {"moments": ((0.1, 0.2), (1.0, 1.0))}):
        with pytest.raises(ValueError, match=r"leave it out with --encoder-only"):
            resized(weights, **options)
    smooth = torch.rand(2, 1, 4, 6)
    new, lines = resized(weights.without_decoder, image_size=(16, 24), patch_size=(8, 4))
    assert lines == ["patch filters resampled from 4 x 2 to 8 x 4 pixels"]
    old_model, new_model = build_timm(weights.without_decoder), build_timm(new)
    small = nn.functional.interpolate(smooth, (8, 12), mode="bicubic", antialias=True)
    large = nn.functional.interpolate(small, (16, 24), mode="bicubic")
    patches, larger = old_model.patch_embed(small), new_model.patch_embed(large)
    assert (patches - larger).norm() < 0.2 * patches.norm()  # the same picture, twice as large, gives the same tokens

    new, lines = resized(weights.without_decoder, moments=((0.1, 0.2), (1.0, 2.0)))
    assert lines == ["patch filters for 2 channels made of those for 1"]
    grey = torch.rand(2, 1, 8, 12)
    torch.testing.assert_close(build_timm(new)(grey.expand(2, 2, 8, 12)), old_model(grey), rtol=1e-4, atol=1e-5)
    assert (new.known.mean, new.known.std) == ((0.1, 0.2), (1.0, 2.0))
    assert resized(new, moments=((0.1, 0.2), (1.0, 2.0)))[1] == []
    same, lines = resized(new, moments=((0.1, 0.2), (1.0, 3.0)))
    assert same.known.std == (1.0, 3.0)
    assert lines == [
        "images normalised by mean (0.1, 0.2) and deviation (1.0, 3.0) from now on; the filters are as they were"
    ]


def test_a_masked_autoencoder_for_other_images_keeps_its_decoder(mae):
    new, lines = resized(completed(open_weights(mae[0])), image_size=(16, 20))
    assert [line.split()[0] for line in lines] == ["pos_embed", "decoder_pos_embed"]
    assert build_masked(new).grid == (4, 10)


def test_load_encoder_for_other_images(tuned):
    model = load_encoder(tuned[0], image_size=(16, 20))
    assert model.patch_embed.grid_size == (4, 10)
    assert model.pretrained_cfg["input_size"] == (1, 16, 20)
    assert model(torch.rand(1, 1, 16, 20)).shape == (1, 16)
    with pytest.raises(ValueError, match=r"image size 9 x 9 is not a multiple of the patch size 4 x 2"):
        load_encoder(tuned[0], image_size=(9, 9))
