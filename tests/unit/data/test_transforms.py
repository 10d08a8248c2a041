"""Augmentation: seeded, bit-exact with torchvision's first transforms on the reference path, any channels."""

import io
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shard_making import npy
from torchvision import transforms as v1
from torchvision.transforms import functional as v1_functional

from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.transforms import (
    Augmentation,
    ColorJitterCropFlip,
    EvaluationCrop,
    FixedCropFlip,
    NoAugmentation,
    RandomResizedCropFlip,
)

BICUBIC = v1.InterpolationMode.BICUBIC
PHOTO = Image.fromarray(np.random.RandomState(0).randint(0, 255, (60, 90, 3), np.uint8)).resize((90, 60))
PNG = io.BytesIO()
PHOTO.save(PNG, "PNG")
AUGMENTATIONS: list[Augmentation] = [
    RandomResizedCropFlip(),
    NoAugmentation(),
    FixedCropFlip(),
    FixedCropFlip(1.0, padding=4),
    ColorJitterCropFlip(),
]


def make(augmentation: Augmentation | None, **options: Any) -> SampleMaker:
    defaults = {"image_size": (32, 24), "num_channels": 3, "dtype": torch.uint8, "seed": 5}
    return SampleMaker(**{**defaults, **options}, augmentation=augmentation)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("decoder", ["fast", "reference"])
def test_choices_depend_on_seed_epoch_and_sample_alone(augmentation: Augmentation, decoder: Any) -> None:
    maker = make(augmentation, decoder=decoder)
    first = maker(PNG.getvalue(), "png", 7, 3)
    torch.rand(3)
    np.random.rand(3)
    assert torch.equal(maker(PNG.getvalue(), "png", 7, 3), first)
    assert first.shape == (3, 32, 24)
    assert first.dtype == torch.uint8
    if not isinstance(augmentation, NoAugmentation):
        others = [maker(PNG.getvalue(), "png", place, epoch) for place, epoch in ((8, 3), (7, 4))]
        others.append(make(augmentation, seed=6, decoder=decoder)(PNG.getvalue(), "png", 7, 3))
        assert all(not torch.equal(other, first) for other in others)


def test_the_reference_crop_is_torchvisions_first_one_bit_by_bit() -> None:
    augmentation = RandomResizedCropFlip()
    flips = 0
    for place in range(50):
        random = Random(place)
        top, left, height, width = augmentation.draw_box(60, 90, random)
        expected = v1_functional.resized_crop(PHOTO, top, left, height, width, [32, 24], BICUBIC)
        if random.random() < 0.5:
            expected, flips = v1_functional.hflip(expected), flips + 1
        found = augmentation(PHOTO, (32, 24), Random(place))
        assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert 15 < flips < 35


def test_the_reference_evaluation_is_torchvisions_first_one_bit_by_bit() -> None:
    crop = EvaluationCrop(0.875)
    for size in ((90, 60), (60, 90), (57, 91), (64, 64), (33, 200)):
        image = PHOTO.resize(size)
        expected = v1.Compose([v1.Resize(64, BICUBIC), v1.CenterCrop(56)])(image)
        assert np.array_equal(np.asarray(crop(image, (56, 56))), np.asarray(expected))


def test_the_fast_path_is_the_reference_to_a_rounding() -> None:
    """Mean absolute difference below 0.1 of 255; here the PNG decodes alike, so only the resizing differs."""
    differences = [
        (make(a)(PNG.getvalue(), "png", i, 0).int() - make(a, decoder="reference")(PNG.getvalue(), "png", i, 0).int())
        for a in AUGMENTATIONS[:4]
        for i in range(20)
    ]
    assert torch.stack(differences).abs().float().mean() < 0.1


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
def test_boxes_lie_within_the_image(height: int, width: int, seed: int) -> None:
    top, left, tall, wide = RandomResizedCropFlip().draw_box(height, width, Random(seed))
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    assert tall > 0
    assert wide > 0


def test_boxes_have_the_distribution_of_torchvisions() -> None:
    """Mean share of the area, mean log shape and mean centre of 4000 boxes each, within five standard errors."""
    torch.manual_seed(0)
    image = torch.zeros(1, 100, 150)
    theirs = [v1.RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    ours = [RandomResizedCropFlip().draw_box(100, 150, Random(seed)) for seed in range(4000)]

    def features(boxes: list[Any]) -> np.ndarray:
        top, left, tall, wide = np.array(boxes, float).T
        return np.stack([tall * wide / 15000, np.log(wide / tall), top + tall / 2, left + wide / 2])

    a, b = features(ours), features(theirs)
    error = np.sqrt((a.var(1) + b.var(1)) / 4000)
    assert np.all(np.abs(a.mean(1) - b.mean(1)) < 5 * error)


def test_no_box_fits_a_long_strip_so_the_largest_centred_one_is_taken() -> None:
    assert RandomResizedCropFlip().draw_box(10, 1000, Random(0)) == (0, 493, 10, 13)
    assert RandomResizedCropFlip().draw_box(1000, 10, Random(0)) == (493, 0, 13, 10)


@pytest.mark.parametrize("size", [(28, 28), (32, 20), (50, 500)])
@given(height=st.integers(1, 80), width=st.integers(1, 80), fraction=st.sampled_from([1.0, 0.875]))
def test_evaluation_covers_any_image(size: tuple[int, int], height: int, width: int, fraction: float) -> None:
    crop = EvaluationCrop(fraction)
    image = torch.full((1, height, width), 200, dtype=torch.uint8)
    found = crop(image, size)
    assert found.shape == (1, *size)
    assert int(found.min()) == 200  # padding would be black


def test_an_image_of_the_right_shape_is_used_whole() -> None:
    image = torch.randint(0, 255, (3, 28, 28), dtype=torch.uint8)
    assert torch.equal(EvaluationCrop()(image, (28, 28)), image)
    wide = torch.zeros(1, 4, 4, dtype=torch.uint8)
    wide[:, :, 0] = 255
    assert EvaluationCrop(interpolation="nearest")(wide, (8, 8))[0, 0].tolist() == [255, 255, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS[:4], ids=lambda a: type(a).__name__)
def test_arrays_of_many_channels_and_floats_go_the_same_way(augmentation: Augmentation) -> None:
    array = np.random.RandomState(0).rand(20, 30, 5).astype(np.float32)
    many = make(augmentation, num_channels=5, dtype=torch.float32)(npy(array), "npy", 0, 0)
    assert many.shape == (5, 32, 24)
    assert many.dtype == torch.float32
    single = make(augmentation, num_channels=1, dtype=torch.float32)(npy(array[:, :, 2:3]), "npy", 0, 0)
    assert torch.allclose(many[2:3], single, atol=1e-6)


@pytest.mark.parametrize("array", [np.full((8, 8, 3), 5000, np.float32), np.zeros((8, 8, 4), np.uint8)])
def test_what_has_no_known_colours_is_not_jittered(array: np.ndarray) -> None:
    jitter = make(ColorJitterCropFlip(), num_channels=array.shape[2], dtype=torch.from_numpy(array).dtype)
    with pytest.raises(ValueError, match=r"takes grey or RGB images of 8 bits; RandomResizedCropFlip takes any"):
        jitter(npy(array), "npy", 0, 0)


def test_another_type_than_the_data_sets_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"pixels of torch.float32 in a data set of torch.uint8"):
        make(None)(npy(np.zeros((4, 4, 3), np.float32)), "npy", 0, 0)


def test_unfit_settings_are_errors() -> None:
    with pytest.raises(ValueError, match=r"crop_fraction 1.5 must be above 0 and at most 1"):
        EvaluationCrop(1.5)
    with pytest.raises(ValueError, match=r"scale \(0.5, 0.2\) must be two shares"):
        RandomResizedCropFlip(scale=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"ratio \(2.0, 1.0\) must be two shapes"):
        RandomResizedCropFlip(ratio=(2.0, 1.0))
