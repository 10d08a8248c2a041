import pytest
import torch
from PIL import Image

from mae_lightning.models import MaskedAutoencoder, Normalization, PatchMask, Pixels, TransformerDecoder
from mae_lightning.pictures import draw_sheet, reconstruct
from mae_lightning.pictures.sheet import as_rgb


@pytest.fixture
def setup():
    torch.manual_seed(0)
    decoder = TransformerDecoder(depth=1, dim=16, num_heads=2)
    model = MaskedAutoencoder("nano/8x4", decoder, image_size=(16, 24), num_channels=5)
    normalize = Normalization([0.4] * 5, [0.2] * 5)
    pixels = torch.rand(3, 5, 16, 24)
    mask = PatchMask.from_noise(torch.rand(3, 12), 0.75)
    return model, normalize, pixels, mask


def test_visible_patches_are_the_images_and_hidden_ones_are_not(setup):
    model, normalize, pixels, mask = setup
    drawn = reconstruct(model, normalize, normalize(pixels), mask)
    torch.testing.assert_close(drawn.original, pixels)
    hidden = mask.is_masked
    for name, kept_is_shown in (("masked", True), ("pasted", True), ("reconstruction", False)):
        patches = model.patches(getattr(drawn, name))
        same = (patches - model.patches(pixels)).abs().amax(dim=2) < 1e-5
        assert torch.equal(same, ~hidden if kept_is_shown else torch.zeros_like(hidden)), name
    torch.testing.assert_close(model.patches(drawn.masked)[hidden], torch.full((27, 160), 0.5))


def test_only_the_labelled_mode_uses_the_hidden_truth(setup):
    model, normalize, pixels, mask = setup
    changed = model.images(
        torch.where(mask.is_masked.unsqueeze(-1), 1 - model.patches(pixels) ** 2, model.patches(pixels))
    )
    for statistics, leaks in (("visible", False), ("truth", True)):
        first, second = (
            reconstruct(model, normalize, normalize(images), mask, statistics=statistics)
            for images in (pixels, changed)
        )
        assert torch.equal(first.pasted, second.pasted) is not leaks
        assert ("ground truth" in first.mode) is leaks


def test_raw_pixels_say_so():
    model = MaskedAutoencoder("nano/8", TransformerDecoder(depth=1, dim=16, num_heads=2), Pixels(), image_size=(16, 16))
    images, mask = torch.rand(1, 3, 16, 16), PatchMask.from_noise(torch.rand(1, 4), 0.5)
    assert reconstruct(model, Normalization([0.5] * 3, [1.0] * 3), images, mask).mode == "raw output"


def test_a_sheet_has_a_row_an_image_and_a_column_a_kind(tmp_path):
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, -1, 8, 8)
    draw_sheet({"left": red, "right": 1 - red}, tmp_path / "folder" / "sheet.png", "caption")
    picture = Image.open(tmp_path / "folder" / "sheet.png").convert("RGB")
    width, height = picture.size
    assert picture.getpixel((width // 4, height // 3)) == (255, 0, 0)
    assert picture.getpixel((3 * width // 4, height // 3)) == (0, 255, 255)
    with pytest.raises(ValueError, match="0 images"):
        draw_sheet({"left": red[:0]}, tmp_path / "sheet.png", "caption")


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_is_shown(channels):
    shown = as_rgb(torch.rand(channels, 4, 6))
    assert shown.shape == (4, 6, 3)
