import pytest
import timm
import torch

from mae_lightning.models import build_classifier, has_drop_path, sincos_positions
from mae_lightning.models.classifier import head_of

SWIN = "swin_tiny_patch4_window7_224"
SMALL = {"num_classes": 7, "image_size": (16, 16), "num_channels": 3}


def test_mean_pooling_norms_after_it_and_leaves_the_class_token_out():
    model = build_classifier("nano/4", **SMALL).eval()
    images = torch.randn(2, 3, 16, 16)
    tokens = model.forward_features(images)  # without a final norm
    feature = torch.nn.functional.layer_norm(tokens[:, 1:].mean(1), (96,), eps=1e-6)
    torch.testing.assert_close(model(images), feature @ model.head.weight.T + model.head.bias)
    assert isinstance(model.norm, torch.nn.Identity)


def test_the_pretrained_norm_can_stay_before_mean_pooling():
    model = build_classifier("nano/4", norm_after_pool=False, **SMALL).eval()
    images = torch.randn(2, 3, 16, 16)
    feature = model.forward_features(images)[:, 1:].mean(1)
    torch.testing.assert_close(model.forward_head(model.forward_features(images), pre_logits=True), feature)
    assert isinstance(model.norm, torch.nn.LayerNorm)


def test_class_pooling_takes_the_class_token_after_the_norm():
    model = build_classifier("nano/4", pool="class", **SMALL).eval()
    images = torch.randn(2, 3, 16, 16)
    feature = model.forward_features(images)[:, 0]
    torch.testing.assert_close(model(images), feature @ model.head.weight.T + model.head.bias)


def test_attentive_pooling_sees_the_patch_tokens_alone():
    model = build_classifier("nano/4", pool="attentive", head_std=0.02, **SMALL).eval()
    tokens = model.forward_features(torch.randn(2, 3, 16, 16))
    changed = torch.cat([torch.randn_like(tokens[:, :1]), tokens[:, 1:]], dim=1)
    torch.testing.assert_close(model.forward_head(tokens), model.forward_head(changed))
    assert not torch.allclose(model.forward_head(tokens), model.forward_head(tokens.flip(2)))


@pytest.mark.parametrize("encoder", ["nano/4", SWIN])
def test_batch_norm_before_the_head_has_no_weights(encoder):
    settings = {"num_classes": 7, "image_size": (32, 32), "num_channels": 1}
    model = build_classifier(encoder, batch_norm=True, head_std=0.01, **settings)
    norm, linear = head_of(model)
    assert not list(norm.parameters())
    assert norm.eps == 1e-6
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert model.train()(torch.randn(4, 1, 32, 32)).shape == (4, 7)


def test_weights_are_timms():
    ours = build_classifier("base/16", pool="class", num_classes=10, image_size=(32, 32), num_channels=3)
    theirs = timm.create_model("vit_base_patch16_224", img_size=32, num_classes=10)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    swin = build_classifier(SWIN, num_classes=10, image_size=(64, 64), num_channels=3)
    theirs = timm.create_model(SWIN, img_size=64, num_classes=10)
    assert {k: v.shape for k, v in swin.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_positions_start_at_sincos_and_learn():
    model = build_classifier("nano/4", **SMALL)
    torch.testing.assert_close(model.pos_embed[0].detach(), sincos_positions((4, 4), 96, 1))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_drop_path_is_seen():
    assert has_drop_path([build_classifier("nano/4", drop_path=0.1, **SMALL)])
    assert not has_drop_path([build_classifier("nano/4", **SMALL)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": SWIN, "pool": "class"}, "Swin has no class token"),
        ({"encoder": SWIN, "image_size": (30, 30)}, "not a multiple of the patch size 4 x 4"),
        ({"encoder": "vit_base_patch16_siglip_224", "pool": "class"}, "it has no class token"),
        ({"encoder": "swinv2_tiny_window8_256"}, "SwinTransformerV2"),
        ({"encoder": "nano/5"}, "not a multiple of the patch size"),
    ],
)
def test_what_does_not_fit_is_one_line(settings, message):
    settings = {"num_classes": 7, "image_size": (32, 32), "num_channels": 3} | settings
    with pytest.raises(ValueError, match=message) as caught:
        build_classifier(**settings)
    assert "\n" not in str(caught.value)
