import random as global_random
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from mae_lightning.data import EvaluationCrop, NoAugmentation, RandAugmentErase, SingleTryCropFlip
from mae_lightning.data.supervised import ERASED_AREA

IMAGE = torch.randint(256, (3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_same_chance_gives_the_same_image_and_leaves_global_chance_alone():
    augment = RandAugmentErase()
    global_random.seed(1)
    np.random.seed(1)
    expected = (global_random.random(), np.random.random_sample())
    global_random.seed(1)
    np.random.seed(1)
    first = augment(IMAGE, (32, 32), Random(7))
    assert (global_random.random(), np.random.random_sample()) == expected
    assert torch.equal(first, augment(IMAGE, (32, 32), Random(7)))
    others = [augment(IMAGE, (32, 32), Random(seed)) for seed in range(8, 12)]
    assert not any(torch.equal(first, other) for other in others)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8


def test_erasing_alone_changes_one_rectangle_of_the_right_area():
    augment = RandAugmentErase(crop=NoAugmentation(), rand_augment=None, erasing=1.0)
    plain = EvaluationCrop()(IMAGE, (32, 32))
    areas = []
    for seed in range(200):
        changed = (augment(IMAGE, (32, 32), Random(seed)) != plain).any(dim=0)
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        area = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
        assert changed.sum() > 0.9 * area
        areas.append(area / 32**2)
    assert ERASED_AREA[0] * 0.8 < min(areas) < 0.05
    assert 0.25 < max(areas) < ERASED_AREA[1] * 1.1


def test_erasing_comes_at_its_chance():
    augment = RandAugmentErase(crop=NoAugmentation(), rand_augment=None, erasing=0.25)
    plain = EvaluationCrop()(IMAGE, (32, 32))
    share = np.mean([not torch.equal(augment(IMAGE, (32, 32), Random(seed)), plain) for seed in range(400)])
    assert 0.19 < share < 0.31


def test_rand_augment_changes_grey_images_and_pillow_images_too():
    augment = RandAugmentErase(crop=NoAugmentation(), erasing=0.0)
    grey = [augment(IMAGE[:1], (32, 32), Random(seed)) for seed in range(20)]
    assert all(image.shape == (1, 32, 32) for image in grey)
    assert len({image.numpy().tobytes() for image in grey}) > 10
    pillow = augment(Image.fromarray(IMAGE.permute(1, 2, 0).numpy()), (32, 32), Random(0))
    assert isinstance(pillow, Image.Image)


def test_a_single_try_cuts_what_is_longer_than_the_image():
    crop = SingleTryCropFlip(scale=(1.0, 1.0), ratio=(4.0, 4.0))
    assert crop.draw_box(40, 30, Random(0))[2:] == (17, 30)  # 69 wide before it is cut to 30
    boxes = [SingleTryCropFlip(scale=(0.08, 1.0)).draw_box(40, 30, Random(seed)) for seed in range(300)]
    assert all(0 <= top <= 40 - tall and 0 <= left <= 30 - wide for top, left, tall, wide in boxes)
    shares = [tall * wide / 1200 for _, _, tall, wide in boxes]
    assert min(shares) < 0.12
    assert max(shares) > 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RandAugmentErase(erasing=1.5), "erasing 1.5 must be a chance"),
        (lambda: RandAugmentErase(rand_augment="m9"), "must be in timm's grammar"),
        (lambda: RandAugmentErase()(torch.rand(5, 40, 40), (32, 32), Random(0)), "5 of torch.float32"),
    ],
)
def test_what_cannot_be_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
