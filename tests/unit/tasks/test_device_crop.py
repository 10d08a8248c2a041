"""Crops on the device against torchvision's, box by box, and what a task makes of them."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from mae_lightning.data import Batch
from mae_lightning.models import TransformerDecoder, ViTSize
from mae_lightning.tasks import DeviceCropFlip, MAEPretraining
from mae_lightning.tasks.device_crop import Boxes, resized_crops

BOXES = [(0, 0, 20, 24, False), (3, 5, 9, 7, True), (11, 0, 2, 24, False), (0, 23, 20, 1, False), (4, 4, 16, 16, True)]


def boxes_of(rows: list[tuple[int, int, int, int, bool]]) -> Boxes:
    *sides, mirrored = zip(*rows, strict=True)
    return Boxes(*(torch.tensor(side).double() for side in sides), torch.tensor(mirrored))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(16, 16), (5, 40), (3, 2)])
def test_every_box_is_torchvisions_antialiased_crop(interpolation, size):
    images = torch.rand(len(BOXES), 3, 20, 24)
    ours = resized_crops(images, boxes_of(BOXES), size, interpolation)
    for image, (top, left, height, width, mirrored), crop in zip(images, BOXES, ours, strict=True):
        mode = InterpolationMode(interpolation)
        expected = F.resized_crop(image, top, left, height, width, list(size), mode, antialias=True)
        expected = F.horizontal_flip(expected) if mirrored else expected
        torch.testing.assert_close(crop, expected, rtol=1e-4, atol=1e-5)


def test_bytes_are_a_level_or_two_from_the_hosts():
    crop = DeviceCropFlip()
    smooth = torch.rand(4, 3, 6, 6)
    images = (255 * F.resize(smooth, [32, 40], antialias=True)).to(torch.uint8)
    boxes = crop.draw((32, 40), torch.arange(4), seed=0, epoch=0)
    ours = crop(images, torch.arange(4), (24, 24), seed=0, epoch=0)
    assert ours.dtype == torch.uint8
    for row in range(4):
        top, left, height, width, mirrored = (int(values[row]) for values in boxes)
        host = F.resized_crop(
            images[row], top, left, height, width, [24, 24], InterpolationMode.BICUBIC, antialias=True
        )
        host = F.horizontal_flip(host) if mirrored else host
        assert (ours[row].int() - host.int()).abs().max() <= 2


def test_boxes_follow_from_seed_epoch_and_sample_alone():
    crop, index = DeviceCropFlip(), torch.arange(50)
    boxes = torch.stack([values.double() for values in crop.draw((32, 40), index, seed=1, epoch=2)])
    alone = torch.stack([values.double() for values in crop.draw((32, 40), index[7:9], seed=1, epoch=2)])
    assert torch.equal(alone, boxes[:, 7:9])
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert not torch.equal(torch.stack([v.double() for v in crop.draw((32, 40), index, **other)]), boxes)


def test_boxes_are_distributed_as_on_the_host():
    boxes = DeviceCropFlip(scale=(0.2, 0.5)).draw((200, 200), torch.arange(4000), seed=0, epoch=0)
    area, shape = boxes.height * boxes.width / 40000, torch.log(boxes.width / boxes.height)
    assert ((area > 0.195) & (area < 0.505)).all()
    assert float(area.mean()) == pytest.approx(0.35, abs=0.005)
    assert float(area.var()) == pytest.approx(0.3**2 / 12, rel=0.08)
    assert float(shape.mean()) == pytest.approx(0, abs=0.01)
    assert float(shape.abs().max()) == pytest.approx(math.log(4 / 3), abs=0.03)
    for start, extent in ((boxes.top, boxes.height), (boxes.left, boxes.width)):
        assert ((start >= 0) & (start + extent <= 200)).all()
        assert float((start / (200 - extent)).mean()) == pytest.approx(0.5, abs=0.02)
    assert float(boxes.mirrored.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert not DeviceCropFlip(flip=False).draw((9, 9), torch.arange(99), seed=0, epoch=0).mirrored.any()


def test_where_nothing_fits_the_largest_centred_part_is_taken():
    boxes = DeviceCropFlip(scale=(1.0, 1.0)).draw((10, 40), torch.arange(3), seed=0, epoch=0)
    assert [values.tolist() for values in boxes[:4]] == [[0] * 3, [13] * 3, [10] * 3, [13] * 3]


def task(**options) -> MAEPretraining:
    torch.manual_seed(0)
    shape = {"image_size": (16, 16), "num_channels": 2, "mean": (0.5, 0.4), "std": (0.2, 0.3), "global_batch_size": 8}
    return MAEPretraining(ViTSize(16, 1, 2, 4), TransformerDecoder(depth=1, dim=16, num_heads=2), **shape, **options)


def test_a_task_trains_on_the_crops():
    crop = DeviceCropFlip()
    stored = torch.randint(256, (4, 2, 20, 20), dtype=torch.uint8)
    valid = torch.tensor([True, True, True, False])
    batch: Batch = {"image": stored, "label": torch.full((4,), -1), "index": torch.arange(4), "valid": valid}
    one, plain = task(device_augmentation=crop), task()
    cropped: Batch = {**batch, "image": crop(stored, torch.arange(4), (16, 16), seed=0, epoch=3)}
    assert torch.equal(one.loss(batch, 3), plain.loss(cropped, 3))
    assert not torch.equal(one.loss(batch, 4), plain.loss(cropped, 4))
    one.check_image_sizes([(20, 20), (18, 18)])
    twice: Batch = {**batch, "image": stored[:1].expand(4, -1, -1, -1), "index": torch.zeros(4).long()}
    twice["repeat"] = torch.arange(4)
    crops = one.training_images(twice, 0)
    assert not any(torch.equal(crops[0], other) for other in crops[1:])


def test_unfit_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^scale \(0.5, 0.2\) must be two shares of the area"):
        DeviceCropFlip(scale=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"^ratio \(0.0, 1.0\) must be two shapes"):
        DeviceCropFlip(ratio=(0.0, 1.0))


def test_crops_do_not_depend_on_the_default_type():
    """Under ``bf16-true`` it is bfloat16, in which no pixel beyond the 256th has a centre."""
    images, crop = torch.randint(256, (4, 1, 300, 300), dtype=torch.uint8), DeviceCropFlip()
    expected = crop(images, torch.arange(4), (224, 224), seed=0, epoch=0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(crop(images, torch.arange(4), (224, 224), seed=0, epoch=0), expected)
    finally:
        torch.set_default_dtype(torch.float32)
