"""What timm's users get: models and files that timm itself loads, with outputs that timm itself gives."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import resolve_model_data_config
from weights_making import SIZE, classification, pretraining, randomized, saved

from mae_lightning import load_encoder
from mae_lightning.commands.inspect import examine
from mae_lightning.tasks import SimMIMPretraining
from mae_lightning.weights.content import completed
from mae_lightning.weights.converting import convert, obstacle
from mae_lightning.weights.opening import open_weights

THEIRS = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0}


def images() -> torch.Tensor:
    return torch.rand(3, 1, 16, 24)


def as_their_user_would(line: str):
    """Runs the line that convert printed."""
    assert line.startswith("use: timm.create_model(")
    return eval(line.removeprefix("use: "), {"timm": timm}).eval()  # noqa: S307


@torch.no_grad()
def test_the_encoder_of_a_pretraining_run(tmp_path):
    task = pretraining()
    theirs = timm.create_model(
        "vit_base_patch16_224", num_classes=0, in_chans=1, global_pool="avg", fc_norm=False, **THEIRS
    )
    state = {
        name.removeprefix("encoder."): value for name, value in task.model.state_dict().items() if "encoder." in name
    }
    theirs.load_state_dict(state)
    ours, x = load_encoder(saved(task, tmp_path / "a.ckpt")), images()
    torch.testing.assert_close(ours.forward_features(x), theirs.eval().forward_features(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    config = resolve_model_data_config(ours)
    assert (config["input_size"], config["mean"], config["std"]) == (
        (1, 16, 24),
        *(pytest.approx((v,)) for v in (0.3, 0.4)),
    )

    lines = convert(completed(open_weights(tmp_path / "a.ckpt")), "timm", tmp_path / "a.safetensors")
    assert lines[0] == "timm holds encoders and classifiers: the decoder is left out"
    exported = as_their_user_would(lines[-1])
    assert torch.equal(exported(x), ours(x))
    assert load_file(tmp_path / "a.safetensors").keys() == theirs.state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{"pool": "mean"}, {"pool": "class", "batch_norm": True}, {"pool": "attentive"}, {"trainable_blocks": 0}],
    ids=str,
)
def test_classifiers(tmp_path, options):
    task, x = classification(**options), images()
    weights = completed(open_weights(saved(task, tmp_path / "a.ckpt")))
    exported = as_their_user_would(convert(weights, "timm", tmp_path / "a.safetensors")[-1])
    torch.testing.assert_close(exported(x), task.model(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(load_encoder(tmp_path / "a.ckpt", head=True)(x), task.model(x))
    torch.testing.assert_close(
        load_encoder(tmp_path / "a.safetensors", head=True)(x), task.model(x), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_a_simmim_encoder(tmp_path):
    task = randomized(SimMIMPretraining("swin-nano/2", image_size=(32, 32), num_channels=1, mean=(0.5,), std=(0.5,)))
    weights, x = completed(open_weights(saved(task, tmp_path / "a.ckpt"))), torch.rand(2, 1, 32, 32)
    exported = as_their_user_would(convert(weights, "timm", tmp_path / "a.safetensors")[-1])
    torch.testing.assert_close(exported(x), task.model.encoder(x), rtol=1e-5, atol=1e-5)
    convert(weights, "safetensors", tmp_path / "whole.safetensors")
    back = open_weights(tmp_path / "whole.safetensors")
    assert back.decoder.keys() == weights.decoder.keys()
    _, uses = examine(str(tmp_path / "a.ckpt"), {})
    assert {use for use, reason in uses.items() if reason} == {
        "predict classes",
        "convert to official",
        "convert to hf",
    }
    for to in ("official", "hf"):
        with pytest.raises(ValueError, match=r"plain ViT.*holds the encoder swin-nano/2 for 32 x 32 images"):
            convert(weights, to, tmp_path / "refused.pth")


@pytest.fixture
def foreign(tmp_path):
    """A model of timm's in its own folder, and its bare weights."""
    model = randomized(timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=4))
    (tmp_path / "hub").mkdir()
    save_file(model.state_dict(), tmp_path / "hub/model.safetensors")
    settings = {"input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 4}
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 4,
        "model_args": {"depth": 2, "img_size": 32},
        "pretrained_cfg": settings,
    }
    (tmp_path / "hub/config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    return model


@torch.no_grad()
def test_timm_gives_its_own_through_its_own_loader(foreign, tmp_path):
    x = torch.rand(2, 3, 32, 32)
    for name in (tmp_path / "hub", f"local-dir:{tmp_path / 'hub'}"):
        ours = load_encoder(name, head=True)
        assert torch.equal(ours(x), foreign(x))
        assert tuple(ours.pretrained_cfg["mean"]) == (0.1, 0.2, 0.3)
    weights = open_weights(f"local-dir:{tmp_path / 'hub'}")
    exported = convert(weights, "official", tmp_path / "official.pth")
    assert exported[0].startswith("checked: tokens, logits differ by ")
    state = torch.load(tmp_path / "official.pth", weights_only=True)["model"]
    assert all(torch.equal(state[name], value) for name, value in foreign.state_dict().items())


def hub(folder, architecture, **options):
    """A model of timm's of random weights, in a folder as timm publishes them."""
    model = randomized(timm.create_model(architecture, **options))
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    size = options.get("img_size", 32)
    config = {
        "architecture": architecture,
        "num_classes": options.pop("num_classes"),
        "model_args": options,
        "pretrained_cfg": {"input_size": [3, size, size], "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return model


@torch.no_grad()
@pytest.mark.parametrize("num_classes", [0, 4])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("vit_tiny_patch16_224", {"depth": 2, "img_size": 32}),
        ("vit_tiny_patch16_224", {"img_size": 32}),
        ("vit_base_patch16_siglip_224", {"depth": 1, "img_size": 32}),
        ("resnet18", {}),
        ("convnext_atto", {}),
    ],
    ids=str,
)
def test_a_name_gives_the_mean_patch_token_and_goes_into_other_formats(tmp_path, architecture, options, num_classes):
    theirs, x = hub(tmp_path / "hub", architecture, **options, num_classes=num_classes), torch.rand(2, 3, 32, 32)
    encoder = load_encoder(tmp_path / "hub")
    tokens = theirs.forward_features(x)
    places = (2, 3) if tokens.ndim == 4 else 1
    if architecture != "convnext_atto":  # which has a norm after its pooling
        patches = tokens if tokens.ndim == 4 else tokens[:, theirs.num_prefix_tokens :]
        torch.testing.assert_close(encoder(x), patches.mean(places))

    about, _ = examine(str(tmp_path / "hub"), {})
    assert about["holds"].startswith("classifier of 4 classes" if num_classes else "encoder")
    weights = open_weights(tmp_path / "hub")
    exported = as_their_user_would(convert(weights, "timm", tmp_path / "a.safetensors")[-1])
    torch.testing.assert_close(exported(x), theirs(x) if num_classes else encoder(x))
    if architecture.startswith("vit"):
        convert(weights, "safetensors", tmp_path / "ours.safetensors")
        torch.testing.assert_close(load_encoder(tmp_path / "ours.safetensors")(x), encoder(x))


@pytest.mark.parametrize(
    "variant", [{"positions": "learned_2d"}, {"positions": "relative"}, {"block_norm": "batch"}], ids=str
)
def test_variants_that_timm_lacks_are_refused_before_the_work(tmp_path, variant):
    weights = completed(open_weights(saved(classification(**variant), tmp_path / "a.ckpt")))
    assert "timm's vit_base_patch16_224 has no place for the weights of" in obstacle(weights, "timm")
    with pytest.raises(ValueError, match="has no place for the weights"):
        convert(weights, "timm", tmp_path / "a.safetensors")
    expected = "torch does not translate the relative positions" if variant == {"positions": "relative"} else "None"
    assert expected in str(obstacle(weights, "onnx"))


@torch.no_grad()
def test_bare_weights_of_timms(foreign, tmp_path):
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_encoder(tmp_path / "bare.pth", head=True)(x), foreign(x))
    assert torch.equal(load_encoder(tmp_path / "bare.pth").forward_features(x), foreign.forward_features(x))


def test_a_name_without_network_is_one_line(monkeypatch):
    def offline(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"^timm cannot give timm/vit_base_patch16_224.mae: no network$"):
        open_weights("timm/vit_base_patch16_224.mae")


def test_a_name_takes_the_tag_of_its_weights(monkeypatch):
    asked = []

    def create(name, pretrained):
        asked.append((name, pretrained))
        return timm.models.create_model(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", create)
    weights = open_weights("timm/vit_base_patch16_224.mae")
    assert asked == [("vit_base_patch16_224.mae", True)]
    assert weights.known.encoder == "vit_base_patch16_224"


def test_dense_features_carry_a_linear_segmentation_probe(tmp_path):
    """Masks of synthetic images by one linear layer on a map of patch tokens."""
    task = pretraining(image_size=(32, 32), encoder=SIZE)
    encoder = load_encoder(saved(task, tmp_path / "a.ckpt"))
    random = torch.Generator().manual_seed(0)
    masks = (torch.rand(60, 1, 4, 4, generator=random) > 0.5).float()
    pictures = 0.6 * masks.repeat_interleave(8, 2).repeat_interleave(8, 3) + 0.2 * torch.rand(
        60, 1, 32, 32, generator=random
    )
    with torch.no_grad():
        (maps,) = encoder.forward_intermediates(pictures, indices=1, norm=True, intermediates_only=True)
    assert maps.shape == (60, 32, 4, 4)
    tokens, labels = maps.movedim(1, 3).flatten(1, 2), masks.flatten(1)
    train, held_out = (
        torch.cat([part, torch.ones(*part.shape[:2], 1)], 2).flatten(0, 1) for part in (tokens[:40], tokens[40:])
    )
    weights = torch.linalg.lstsq(train, labels[:40].flatten() - 0.5).solution
    accuracy = ((held_out @ weights > 0) == labels[40:].flatten().bool()).float().mean()
    assert accuracy > 0.95
