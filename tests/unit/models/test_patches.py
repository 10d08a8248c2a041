import pytest
import torch

from mae_lightning.models import patch_grid, patchify, unpatchify


def test_patches_are_row_major_and_their_values_ordered_row_column_channel():
    images = torch.randn(2, 5, 4, 9)
    height, width = 2, 3
    patches = patchify(images, (height, width))
    assert patches.shape == (2, 6, 30)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                values = [
                    images[image, channel, row * height + y, column * width + x]
                    for y in range(height)
                    for x in range(width)
                    for channel in range(5)
                ]
                assert torch.equal(patches[image, row * 3 + column], torch.stack(values))


def test_there_and_back():
    images = torch.randn(2, 5, 6, 8)
    assert torch.equal(unpatchify(patchify(images, (3, 2)), (3, 2), (2, 4), 5), images)


def test_grid():
    assert patch_grid((64, 96), (8, 4)) == (8, 24)


@pytest.mark.parametrize(
    ("image_size", "message"),
    [
        ((8, 32), "image size 8 x 32 is smaller than a patch of 16 x 8; use larger images or smaller patches"),
        ((32, 41), "image size 32 x 41 is not a multiple of the patch size 16 x 8; 32 x 40 would be"),
        ((30, 41), "image size 30 x 41 is not a multiple of the patch size 16 x 8; 32 x 40 would be"),
    ],
)
def test_images_that_do_not_divide_are_refused(image_size, message):
    with pytest.raises(ValueError) as caught:
        patch_grid(image_size, (16, 8))
    assert str(caught.value) == message
