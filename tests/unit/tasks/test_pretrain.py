import math

import pytest
import torch

from mae_lightning.models import (
    DiscreteVAE,
    GridMasking,
    NormalizedPixels,
    PatchMask,
    RandomMasking,
    Tokens,
    TransformerDecoder,
    sample_noise,
    save_tokenizer,
)
from mae_lightning.tasks import MAEPretraining
from mae_lightning.tasks.held_out import HeldOutMetrics


def task(**changes) -> MAEPretraining:
    torch.manual_seed(0)
    options = {"encoder": "nano/4", "decoder": TransformerDecoder(depth=1, dim=16, num_heads=2), "image_size": (16, 24)}
    options |= {"num_channels": 2, "mean": (0.5, 0.4), "std": (0.2, 0.3), "global_batch_size": 512}
    return MAEPretraining(**(options | changes))


def batch(size: int = 4) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randint(256, (size, 2, 16, 24), dtype=torch.uint8, generator=generator),
        "label": torch.full((size,), -1),
        "index": torch.arange(size) + 100,
        "valid": torch.ones(size, dtype=torch.bool),
    }


def test_lr_scales_with_the_global_batch():
    assert task(base_lr=1.5e-4).lr == 3e-4


def test_a_mask_depends_on_seed_epoch_and_sample_alone():
    one = task()
    together = one.draw_mask(torch.tensor([5, 9]), seed=0, epoch=3)
    alone = one.draw_mask(torch.tensor([9]), seed=0, epoch=3)
    assert torch.equal(together.kept[1], alone.kept[0])
    for other in ({"seed": 1, "epoch": 3}, {"seed": 0, "epoch": 4}):
        assert not torch.equal(one.draw_mask(torch.tensor([9]), **other).kept, alone.kept)


def test_invalid_rows_do_not_change_the_loss():
    one = task()
    one.log_loss = lambda *args, **kwargs: None
    one.__class__.current_epoch = property(lambda self: 0)
    whole = batch(4)
    part = {name: values[:2] for name, values in whole.items()}
    whole["valid"] = torch.tensor([True, True, False, False])
    torch.testing.assert_close(one.training_step(whole, 0), one.training_step(part, 0))


def test_held_out_figures_equal_a_loop():
    one, data = task(), batch(5)
    images = one.normalize(data["image"])
    noise = sample_noise(data["index"], one.model.num_patches, 0, 0)
    metrics = HeldOutMetrics(one.model)
    for rows in (slice(0, 2), slice(2, 5)):
        metrics.update(one.model, one.normalize, images[rows], noise[rows], data["valid"][rows], one.sampler, 0.75)
    figures = metrics.compute()

    mask = PatchMask.from_noise(noise, 0.75)
    target = NormalizedPixels()(one.model.patches(images))
    prediction = one.model.predict(images, mask).detach()
    losses: dict[str, list[float]] = {"loss": [], "loss_zero": [], "loss_visible_mean": []}
    for row in range(5):
        visible = torch.stack([target[row, int(i)] for i in mask.kept[row]]).mean(0)
        for i in map(int, mask.masked[row]):
            losses["loss"].append(float((prediction[row, i] - target[row, i]).square().mean()))
            losses["loss_zero"].append(float(target[row, i].square().mean()))
            losses["loss_visible_mean"].append(float((visible - target[row, i]).square().mean()))
    for name, values in losses.items():
        assert float(figures[name]) == pytest.approx(sum(values) / len(values), rel=1e-5), name


def test_psnr_is_of_raw_pixels_at_a_random_three_quarters_whatever_the_models_own_ratio():
    data = batch(5)
    figures = {}
    for ratio in (0.75, 0.5):
        one = task(mask_ratio=ratio)
        noise = sample_noise(data["index"], one.model.num_patches, 0, 0)
        metrics = HeldOutMetrics(one.model)
        images = one.normalize(data["image"])
        metrics.update(one.model, one.normalize, images, noise, data["valid"], one.sampler, ratio)
        figures[ratio] = metrics.compute()
    torch.testing.assert_close(figures[0.75]["psnr"], figures[0.5]["psnr"])
    assert figures[0.75]["loss"] != figures[0.5]["loss"]

    one = task()
    images, mask = one.normalize(data["image"]), PatchMask.from_noise(noise, 0.75)
    truth = one.model.patches(images)
    one.requires_grad_(False)
    pixels = one.model.target.to_pixels(
        one.model.predict(images, mask), truth, mask, one.model.grid, one.model.patch_size
    )
    error = one.normalize.undo(one.model.images(pixels)) - data["image"] / 255
    squared = one.model.patches(error).square()[mask.is_masked].mean()
    torch.testing.assert_close(figures[0.75]["psnr"], -10 * torch.log10(squared))


def test_padding_leaves_the_figures_alone():
    one, data = task(), batch(6)
    images = one.normalize(data["image"])
    noise = sample_noise(data["index"], one.model.num_patches, 0, 0)
    plain, padded = HeldOutMetrics(one.model), HeldOutMetrics(one.model)
    valid = torch.tensor([True] * 4 + [False] * 2)
    plain.update(one.model, one.normalize, images[:4], noise[:4], valid[:4], one.sampler, 0.75)
    padded.update(one.model, one.normalize, images, noise, valid, one.sampler, 0.75)
    for name, value in plain.compute().items():
        torch.testing.assert_close(padded.compute()[name], value)


def test_a_checkpoint_says_what_it_is():
    checkpoint: dict = {}
    task(encoder="nano/8x4").on_save_checkpoint(checkpoint)
    card = checkpoint["mae_lightning"]
    assert (card["objective"], card["encoder"], card["has_decoder"]) == ("mae", "nano/8x4", True)
    assert (card["image_size"], card["num_channels"]) == ([16, 24], 2)
    assert card["mean"] == pytest.approx([0.5, 0.4])
    assert card["decoder"]["init_args"] == {"depth": 1, "dim": 16, "num_heads": 2, "mlp_ratio": 4.0}
    assert card["target"]["class_path"].endswith("NormalizedPixels")


def test_features_are_the_mean_patch_token():
    one = task()
    images = batch(3)["image"]
    tokens = one.model.encoder.forward_features(one.normalize(images))
    torch.testing.assert_close(one.features(images), tokens[:, 1:].mean(1))


def test_a_ratio_that_the_sampler_cannot_honour_is_refused_before_training():
    with pytest.raises(ValueError, match=r"^grid masking .* mask_ratio must be 0.75, not 0.6$"):
        task(sampler=GridMasking(), mask_ratio=0.6)
    assert task(sampler=GridMasking()).num_kept == 6


def test_held_out_figures_of_tokens_leave_out_what_is_not_defined(tmp_path):
    save_tokenizer(DiscreteVAE(num_channels=2, stride=4, num_codes=7, dim=4), tmp_path / "t.safetensors")
    one, data = task(target=Tokens(str(tmp_path / "t.safetensors"))), batch(4)
    images = one.normalize(data["image"])
    torch.testing.assert_close(one.model.target.undo(images), data["image"] / 255)
    noise = sample_noise(data["index"], one.model.num_patches, 0, 0)
    metrics = HeldOutMetrics(one.model)
    metrics.update(one.model, one.normalize, images, noise, data["valid"], one.sampler, 0.75)
    figures = metrics.compute()
    assert figures.keys() == {"loss", "loss_zero"}
    assert float(figures["loss_zero"]) == pytest.approx(math.log(7), rel=1e-5)


def test_images_of_one_colour_have_no_predictor_to_beat():
    assert task().results({"val/loss": 0.0, "val/loss_zero": 0.0}) == {}
    assert task().results({"val/loss": 1.0, "val/loss_zero": 2.0}) == {"loss / zero or visible mean": "0.500"}


def test_a_grid_too_small_for_the_fixed_mask_has_no_psnr():
    one, data = task(encoder="nano/16", image_size=(16, 32), mask_ratio=0.5), batch(4)
    data["image"] = data["image"].repeat(1, 1, 1, 2)[..., :32]
    assert one.model.num_patches == 2
    one.validation_step(data, 0)
    assert one.held_out.compute().keys() == {"loss", "loss_zero", "loss_visible_mean", "loss_position_mean"}


def test_a_patch_of_one_value_is_refused():
    with pytest.raises(ValueError, match=r"^a patch of one value has no variance"):
        task(encoder="nano/1", image_size=(4, 4), num_channels=1, mean=(0.5,), std=(0.2,))


def test_a_sampler_derived_from_the_uniform_one_is_judged_on_the_fixed_mask():
    """Its own mask is another, though its ratio is the same."""

    class Backwards(RandomMasking):
        def __call__(self, noise, grid, mask_ratio):
            return super().__call__(1 - noise, grid, mask_ratio)

    figures = []
    for sampler in (None, Backwards()):
        one = task(sampler=sampler)
        one.validation_step(batch(8), 0)
        figures.append(one.held_out.compute())
    assert figures[0]["loss"] != figures[1]["loss"]
    assert figures[0]["psnr"] == figures[1]["psnr"]


def test_a_cosine_does_not_rise():
    one = task(base_lr=1e-4)
    one.min_lr = 3e-4
    with pytest.raises(ValueError, match=r"^min_lr 0.0003 is above the peak of 0.0002 that base_lr 0.0001 gives"):
        one.configure_optimizers()
