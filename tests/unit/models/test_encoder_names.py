"""Every name of timm's either builds a plain VisionTransformer or is refused in one line."""

import pytest
import timm
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer

from mae_lightning.models import build_encoder

IMAGE_SIZE = (448, 448)  # whole patches of 8, 14, 16 and 32
SMALL_ENOUGH = ("tiny", "small", "base", "test")
WORDS = ("vit", "deit", "beit", "eva", "aim")  # in the name of every plain VisionTransformer


def attempt(name: str) -> VisionTransformer | str:
    try:
        with torch.device("meta"):
            return build_encoder(name, image_size=IMAGE_SIZE, num_channels=4)
    except ValueError as error:
        return str(error)


def is_small(name: str) -> bool:
    return any(word in name for word in SMALL_ENOUGH)


def check(names: list[str]) -> list[str]:
    accepted = []
    for name in names:
        result = attempt(name)
        if isinstance(result, str):
            assert result.startswith(f"encoder '{name}' "), name
            assert "wanted: SIZE/PATCH such as 'base/16'" in result
            assert "\n" not in result
        else:
            assert (type(result), type(result.patch_embed)) == (VisionTransformer, PatchEmbed), name
            assert (result.patch_embed.img_size, result.patch_embed.proj.in_channels) == (IMAGE_SIZE, 4), name
            accepted.append(name)
    return accepted


def test_small_and_base_names_work():
    accepted = check([name for name in timm.list_models("*") if (is_small(name) and "vit" in name) or "deit" in name])
    assert len(accepted) >= 60
    assert {"vit_base_patch16_224", "deit_small_patch16_224", "vit_small_patch14_reg4_dinov2"} <= set(accepted)


def test_names_of_other_kinds_are_refused():
    others = [name for name in timm.list_models("*") if not any(word in name for word in WORDS)]
    assert len(others) > 800
    assert not check(others)


@pytest.mark.slow
def test_all_names_that_might_work_against_what_timm_builds():
    names = [name for name in timm.list_models("*") if any(word in name for word in WORDS)]
    plain = set()
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name)
        if type(model) is VisionTransformer and type(model.patch_embed) is PatchEmbed:
            plain.add(name)
    assert set(check(names)) == plain
    assert len(plain) > 170


@pytest.mark.parametrize(
    ("name", "objection", "nearest"),
    [
        ("resnet50", "is timm's ResNet", ""),
        ("eva02_base_patch14_224", "is timm's Eva", "; nearest: vit_base_patch16_224, deit_base_patch16_224, "),
        ("vit_base_r50_s16_224", "has a HybridEmbed", "; nearest: vit_base_patch16_224, "),
        ("vit_base_patch16_22", "is not known", "; nearest: vit_base_patch16_224, "),
        ("vit_base_patch16_224.mae", "is not known", "; nearest: vit_base_patch16_224, "),
    ],
)
def test_message(name, objection, nearest):
    message = attempt(name)
    expected = (
        f"encoder '{name}' {objection}; wanted: SIZE/PATCH such as 'base/16' "
        f"(sizes nano, tiny, small, base, large, huge) or the name of a timm VisionTransformer "
        f"with a plain PatchEmbed{nearest}"
    )
    assert isinstance(message, str)
    assert message.startswith(expected)
    assert bool(nearest) == (message != expected)


def test_image_that_is_no_whole_number_of_the_names_patches_is_refused():
    with pytest.raises(
        ValueError, match=r"^image size 224 x 230 is not a multiple of the patch size 14 x 14; 224 x 224 would be$"
    ):
        build_encoder("vit_small_patch14_dinov2", image_size=(224, 230), num_channels=3)
