import pytest
import torch

from mae_lightning.models import AbsolutePixels, Normalization, PatchMask, SwinSize, sample_noise
from mae_lightning.pictures import reconstruct
from mae_lightning.tasks import Classification, SimMIMPretraining
from mae_lightning.tasks.held_out import HeldOutMetrics

TOY = SwinSize(8, (1, 2), 1, patch_size=2)
IMAGES = {"image_size": (16, 16), "num_channels": 2, "mean": (0.5, 0.4), "std": (0.2, 0.3)}


def task(**changes) -> SimMIMPretraining:
    torch.manual_seed(0)
    return SimMIMPretraining(**({"encoder": TOY, "global_batch_size": 1024} | IMAGES | changes))


def batch(size: int = 4) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randint(256, (size, 2, 16, 16), dtype=torch.uint8, generator=generator),
        "label": torch.full((size,), -1),
        "index": torch.arange(size) + 100,
        "valid": torch.ones(size, dtype=torch.bool),
    }


def saved(one, path) -> str:
    torch.save({"state_dict": one.state_dict(), "mae_lightning": one.card().to_dict()}, path)
    return str(path)


def test_lr_is_stated_per_512_images():
    one = task(base_lr=2e-4, base_min_lr=2e-5)
    assert one.lr == pytest.approx(4e-4)
    assert "0.0002 x 1024 / 512" in one.lr_rule
    assert one.lr_rule.endswith("cosine to 4e-05")
    half = task(base_lr=2e-4, base_min_lr=2e-5, global_batch_size=512)
    assert (half.lr, half.min_lr) == (pytest.approx(2e-4), pytest.approx(2e-5))


def test_adamw_decays_neither_the_mask_token_nor_biases_of_position(monkeypatch):
    one = task(weight_decay=0.05)
    monkeypatch.setattr(one, "scheduled", lambda optimizer: {"optimizer": optimizer})
    optimizer = one.configure_optimizers()["optimizer"]
    names = {id(parameter): name for name, parameter in one.model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(names)
    for name, parameter in one.model.named_parameters():
        plain = name == "mask_token" or "relative_position_bias_table" in name or parameter.ndim == 1
        assert decay[name] == (0.0 if plain else 0.05), name
    assert optimizer.defaults["betas"] == (0.9, 0.999)


def test_invalid_rows_do_not_change_the_loss(monkeypatch):
    one = task()
    monkeypatch.setattr(one, "log_loss", lambda *args, **kwargs: None)
    monkeypatch.setattr(SimMIMPretraining, "current_epoch", 0)
    whole = batch(4)
    part = {name: values[:2] for name, values in whole.items()}
    whole["valid"] = torch.tensor([True, True, False, False])
    torch.testing.assert_close(one.training_step(whole, 0), one.training_step(part, 0))


def test_held_out_figures_equal_a_loop_under_the_absolute_error():
    one, data = task(), batch(5)
    images = one.normalize(data["image"])
    noise = sample_noise(data["index"], one.model.num_patches, 0, 0)
    metrics = HeldOutMetrics(one.model)
    for rows in (slice(0, 2), slice(2, 5)):
        metrics.update(one.model, one.normalize, images[rows], noise[rows], data["valid"][rows], one.sampler, 0.6)
    figures = metrics.compute()
    assert set(figures) == {"loss", "loss_zero", "loss_visible_mean", "psnr"}  # no closed form of a position's median

    mask = PatchMask.from_noise(noise, 0.6)
    target, prediction = one.model.patches(images), one.model.predict(images, mask).detach()
    losses: dict[str, list[float]] = {"loss": [], "loss_zero": [], "loss_visible_mean": []}
    for row in range(5):
        visible = torch.stack([target[row, int(i)] for i in mask.kept[row]]).mean(0)
        for i in map(int, mask.masked[row]):
            losses["loss"].append(float((prediction[row, i] - target[row, i]).abs().mean()))
            losses["loss_zero"].append(float(target[row, i].abs().mean()))
            losses["loss_visible_mean"].append(float((visible - target[row, i]).abs().mean()))
    for name, values in losses.items():
        assert float(figures[name]) == pytest.approx(sum(values) / len(values), rel=1e-5), name
    metrics.reset()
    metrics.update(one.model, one.normalize, images[:1], noise[:1], data["valid"][:1], one.sampler, 0.6)
    assert metrics.compute()["loss"] != figures["loss"]


def test_pictures_say_that_they_are_raw_output():
    one = task()
    images = one.normalize(batch(2)["image"])
    mask = one.draw_mask(torch.arange(2), seed=0, epoch=0)
    drawn = reconstruct(one.model, Normalization(IMAGES["mean"], IMAGES["std"]), images, mask)
    assert drawn.mode == "raw output"
    same = (one.model.patches(drawn.pasted) - one.model.patches(drawn.original)).abs().amax(dim=2) < 1e-5
    assert torch.equal(same, ~mask.is_masked)


def test_a_checkpoint_says_what_it_is():
    checkpoint: dict = {}
    task().on_save_checkpoint(checkpoint)
    card = checkpoint["mae_lightning"]
    assert (card["objective"], card["has_decoder"], card["image_size"]) == ("simmim", True, [16, 16])
    assert card["encoder"] == {
        "dim": 8,
        "depths": (1, 2),
        "num_heads": 1,
        "patch_size": 2,
        "window_size": None,
        "mlp_ratio": 4.0,
    }
    assert card["decoder"]["init_args"] == {"dim": 16, "stride": 4, "num_channels": 2}
    assert card["target"]["class_path"].endswith(AbsolutePixels.__name__)


def test_features_see_everything():
    one, images = task(), batch(3)["image"]
    torch.testing.assert_close(
        one.features(images), one.model.encoder.forward_features(one.normalize(images)).mean((1, 2))
    )


def test_pretraining_goes_on_from_a_checkpoint_of_another_image_size(tmp_path):
    one = task()
    torch.nn.init.normal_(one.model.mask_token)
    path = saved(one, tmp_path / "simmim.ckpt")
    again = task(init_from=path)
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in again.state_dict().items())
    larger = task(init_from=path, image_size=(24, 24))
    assert torch.equal(larger.model.mask_token, one.model.mask_token)
    assert "started from" in larger.origin
    with pytest.raises(ValueError, match="does not fit the model"):
        task(init_from=path, encoder=SwinSize(8, (2, 2), 1, patch_size=2))


def classifier(**changes) -> Classification:
    return Classification(**({"encoder": TOY, "num_classes": 3, "global_batch_size": 64} | IMAGES | changes))


def test_fine_tuning_starts_from_every_weight_of_the_encoder(tmp_path):
    one = task()
    torch.nn.init.normal_(one.model.encoder.norm.weight)
    path = saved(one, tmp_path / "simmim.ckpt")
    tuned = classifier(init_from=path, layer_decay=0.9)
    assert tuned.origin == f"encoder of {path}; fresh head"
    for name, value in one.model.encoder.state_dict().items():
        assert torch.equal(tuned.model.state_dict()[name], value), name


def test_fine_tuning_at_another_image_size_resamples_positions_and_says_so(tmp_path):
    path = saved(task(), tmp_path / "simmim.ckpt")
    assert "relative positions resampled" in classifier(init_from=path, image_size=(24, 24)).origin
    with pytest.raises(
        ValueError, match=r"does not fit the model: .*relative_position_bias_table is \[49, 1\]"
    ) as caught:
        classifier(init_from=path, image_size=(16, 24))
    assert "\n" not in str(caught.value)
