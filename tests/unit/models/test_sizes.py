import pytest

from mae_lightning.models import SIZES, ViTSize
from mae_lightning.models.sizes import named_size


@pytest.mark.parametrize(
    ("name", "dim", "depth", "num_heads", "patch"),
    [
        ("nano/4", 96, 6, 3, (4, 4)),
        ("tiny/8x4", 192, 12, 3, (8, 4)),
        ("small/16", 384, 12, 6, (16, 16)),
        ("base/16", 768, 12, 12, (16, 16)),
        ("large/16", 1024, 24, 16, (16, 16)),
        ("huge/14", 1280, 32, 16, (14, 14)),
    ],
)
def test_named_sizes(name, dim, depth, num_heads, patch):
    assert named_size(name) == ViTSize(dim, depth, num_heads, patch)


def test_table_holds_the_published_patches():
    patches = {name: size.patch_size for name, size in SIZES.items()}
    assert patches == {"nano": 4, "tiny": 16, "small": 16, "base": 16, "large": 16, "huge": 14}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bas/16", "no size 'bas' in encoder 'bas/16'; the sizes are nano, tiny, small, base, large, huge"),
        ("base", "no patch size '' in encoder 'base'; write it as 'base/16' or 'base/8x4' (h x w)"),
        ("base/0", "no patch size '0' in encoder 'base/0'; write it as 'base/16' or 'base/8x4' (h x w)"),
        ("base/8x", "no patch size '8x' in encoder 'base/8x'; write it as 'base/16' or 'base/8x4' (h x w)"),
        ("base/8x4x3", "no patch size '8x4x3' in encoder 'base/8x4x3'; write it as 'base/16' or 'base/8x4' (h x w)"),
    ],
)
def test_misspelt_sizes_are_refused(name, message):
    with pytest.raises(ValueError) as caught:
        named_size(name)
    assert str(caught.value) == message


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"^a width of 100 cannot be split into 3 heads; use a multiple of it$"):
        ViTSize(100, 1, 3, 4)
