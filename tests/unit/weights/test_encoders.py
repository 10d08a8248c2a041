import pytest
import torch

from mae_lightning.models import TransformerDecoder, build_classifier
from mae_lightning.tasks import Classification, MAEPretraining
from mae_lightning.weights import read_encoder
from mae_lightning.weights.official import to_official

IMAGES = {"image_size": (16, 16), "num_channels": 1, "mean": (0.3,), "std": (0.3,)}


def saved(task, path):
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict()}, path)
    return str(path)


@pytest.fixture
def pretrained(tmp_path):
    task = MAEPretraining(encoder="nano/4", decoder=TransformerDecoder(depth=1, dim=32, num_heads=2), **IMAGES)
    return task, saved(task, tmp_path / "mae.ckpt")


def classifier(encoder="nano/4", **settings):
    options = {"num_classes": 5, "image_size": (16, 16), "num_channels": 1} | settings
    return build_classifier(encoder, **options)


def test_every_weight_below_the_head_comes_over(pretrained):
    task, path = pretrained
    torch.nn.init.normal_(task.model.encoder.norm.weight)
    saved(task, path)
    model = classifier(pool="class")
    assert read_encoder(path).load_into(model) == f"encoder of {path}; fresh head"
    for name, value in task.model.encoder.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_the_norm_after_pooling_stays_fresh(pretrained):
    task, path = pretrained
    torch.nn.init.normal_(task.model.encoder.norm.weight)
    saved(task, path)
    model = classifier(pool="mean")
    assert read_encoder(path).load_into(model) == f"encoder of {path}; fresh final norm and head"
    assert torch.equal(model.fc_norm.weight, torch.ones(96))
    assert torch.equal(model.blocks[3].attn.qkv.weight, task.model.encoder.blocks[3].attn.qkv.weight)


def test_official_files_too(pretrained, tmp_path):
    task, _ = pretrained
    path = tmp_path / "official.pth"
    torch.save({"model": to_official(task.model.state_dict())}, path)
    model = classifier(pool="class")
    read_encoder(path).load_into(model)
    assert torch.equal(model.norm.weight, task.model.encoder.norm.weight)
    assert torch.equal(model.pos_embed, task.model.encoder.pos_embed)


def test_a_classifiers_encoder_starts_another_of_other_classes(tmp_path):
    task = Classification(encoder="nano/4", num_classes=7, **IMAGES)
    path = saved(task, tmp_path / "classifier.ckpt")
    model = classifier(pool="mean")
    before = model.head.weight.clone()
    read_encoder(path).load_into(model)
    assert torch.equal(model.fc_norm.weight, task.model.fc_norm.weight)
    assert torch.equal(model.pos_embed, task.model.pos_embed)
    assert torch.equal(model.head.weight, before)


@pytest.mark.parametrize(
    ("encoder", "settings", "difference"),
    [
        ("tiny/4", {}, r"missing blocks\.6\.\*; .*missing blocks\.11\.\*"),
        ("nano/8", {}, r"patch_embed.proj.weight is \[96, 1, 4, 4\], the model's is \[96, 1, 8, 8\]"),
        ("nano/4", {"num_channels": 3}, "patch_embed.proj.weight is"),
    ],
)
def test_another_encoder_is_named_in_one_line(pretrained, encoder, settings, difference):
    _, path = pretrained
    holds = r"holds the encoder nano/4 for 16 x 16 images of 1 channels, which does not fit the model: .*" + difference
    model = classifier(encoder, **settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=holds) as caught:
        read_encoder(path).load_into(model)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
