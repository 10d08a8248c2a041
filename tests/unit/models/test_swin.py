import pytest
import timm
import torch

from mae_lightning.models import (
    SwinSize,
    ViTSize,
    build_classifier,
    build_swin,
    explicit_size,
    is_swin,
    resample_positions,
)
from mae_lightning.models.sizes import named_size, named_swin
from mae_lightning.models.swin import POSITIONS, check_windows

TOY = SwinSize(8, (1, 2), 1, patch_size=2)
IMAGES = {"image_size": (16, 16), "num_channels": 1}


def test_named_sizes_are_the_published_ones():
    assert named_swin("swin-base/4") == SwinSize(128, (2, 2, 18, 2), 4, 4)
    assert named_swin("swin-nano/2").stride == 8
    for size in ("tiny", "base"):
        with torch.device("meta"):
            built = build_swin(f"swin-{size}/4", image_size=(224, 224), num_channels=3, num_classes=10)
            named = timm.create_model(f"swin_{size}_patch4_window7_224", num_classes=10)
        shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (built, named)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("image_size", "window"), [((224, 224), (7, 7)), ((192, 192), (6, 6)), ((192, 256), (6, 8))])
def test_windows_follow_the_image(image_size, window):
    with torch.device("meta"):
        model = build_swin(SwinSize(8, (1, 1, 1, 1), 1, patch_size=4), image_size=image_size, num_channels=3)
    assert all(block.window_size == window for stage in model.layers for block in stage.blocks)
    check_windows(model)


def test_channels_and_heads_double_from_stage_to_stage():
    model = build_swin(SwinSize(12, (1, 1, 2), 3, patch_size=2, mlp_ratio=2.0), image_size=(16, 16), num_channels=1)
    blocks = [stage.blocks[-1] for stage in model.layers]
    assert [(block.dim, block.attn.num_heads, block.mlp.fc1.out_features) for block in blocks] == [
        (12, 3, 24),
        (24, 6, 48),
        (48, 12, 96),
    ]


def test_what_is_a_swin():
    assert all(map(is_swin, (TOY, "swin-nano/2", "swin_tiny_patch4_window7_224")))
    assert not any(map(is_swin, ("nano/4", ViTSize(8, 1, 1, 4), "swinv2_tiny_window8_256", "swin_huge")))


def test_sizes_come_back_from_plain_values():
    assert explicit_size({"dim": 8, "depths": [1, 2], "num_heads": 1, "patch_size": 2}) == TOY
    assert explicit_size({"dim": 8, "depth": 1, "num_heads": 1, "patch_size": [4, 2]}) == ViTSize(8, 1, 1, (4, 2))


def test_a_classifier_of_explicit_sizes_pools_the_last_stage():
    model = build_classifier(TOY, num_classes=3, head_std=0.1, **IMAGES).eval()
    images = torch.randn(2, 1, 16, 16)
    feature = model.forward_features(images).mean((1, 2))
    torch.testing.assert_close(model(images), feature @ model.head.fc.weight.T + model.head.fc.bias)


@pytest.mark.parametrize(
    ("encoder", "image_size", "message"),
    [
        ("nano/4", (32, 32), "encoder 'nano/4' is no Swin; wanted: SIZE/PATCH such as 'swin-base/4' (sizes swin-nano"),
        ("swin-nan/2", (32, 32), "no size 'swin-nan' in encoder 'swin-nan/2'; the sizes are swin-nano, swin-tiny"),
        ("swin-nano", (32, 32), "no patch size '' in encoder 'swin-nano'; write it as 'swin-nano/4'"),
        ("swin-nano/2x4", (32, 32), "encoder 'swin-nano/2x4' has patches of 2 x 4; Swin's are square: 'swin-nano/4'"),
        (
            "swin-nano/2",
            (28, 32),
            "image size 28 x 32 is not a multiple of the 8 pixels of a token in Swin's last stage; 32 x 32 would be",
        ),
        (
            "swin-nano/2",
            (4, 4),
            "image size 4 x 4 is not a multiple of the 8 pixels of a token in Swin's last stage; 8 x 8",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(encoder, image_size, message):
    with pytest.raises(ValueError) as caught:
        build_swin(encoder, image_size=image_size, num_channels=1)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"), [({"dim": 10, "num_heads": 3}, "cannot be split into 3 heads"), ({"depths": ()}, "depths")]
)
def test_sizes_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        SwinSize(**({"dim": 8, "depths": (1,), "num_heads": 1, "patch_size": 2} | values))


def test_a_vit_is_asked_for_where_a_swin_is_named():
    with pytest.raises(ValueError, match="'swin-nano/2' is a Swin, which drops no tokens; pretrain it with SimMIM"):
        named_size("swin-nano/2")


def test_windows_that_do_not_divide_are_named():
    model = build_swin(SwinSize(8, (1, 1), 1, 2, window_size=3), image_size=(24, 20), num_channels=1)
    with pytest.raises(ValueError, match="stage 1 has 12 x 10 tokens, no whole number of windows of 3 x 3"):
        check_windows(model)


def test_relative_positions_are_resampled_to_other_windows():
    small, large = (build_swin(TOY, image_size=size, num_channels=1) for size in ((16, 16), (24, 24)))
    key = f"layers.1.blocks.1.attn.{POSITIONS}"
    state = small.state_dict()
    rows, columns = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    state[key] = (rows.abs() + 2 * columns.abs()).reshape(49, 1).repeat(1, 2)
    fitting = resample_positions(state, large)
    large.load_state_dict(fitting)
    table = fitting[key].view(11, 11, 2)
    torch.testing.assert_close(table[5, 5], torch.zeros(2), atol=0.2, rtol=0)
    torch.testing.assert_close(table, table.flip(0), atol=1e-4, rtol=1e-4)
    assert table[5, 10, 0] > table[10, 5, 0] > table[5, 6, 0] > table[5, 5, 0]
    assert all(fitting[name] is value for name, value in state.items() if POSITIONS not in name)
    assert all(value is state[name] for name, value in resample_positions(state, small).items())


def test_positions_that_cannot_be_resampled_are_left_for_the_check():
    square, wide = (build_swin(TOY, image_size=size, num_channels=1) for size in ((16, 16), (16, 24)))
    heads = build_swin(SwinSize(8, (1, 2), 2, patch_size=2), image_size=(24, 24), num_channels=1)
    for model in (wide, heads):
        state = square.state_dict()
        assert all(value is state[name] for name, value in resample_positions(state, model).items())
