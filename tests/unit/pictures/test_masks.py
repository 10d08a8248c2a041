import pytest
import torch

from mae_lightning.models import BlockMasking, GridMasking, RandomMasking, sample_noise
from mae_lightning.pictures import mask_kinds

SHOWN = {"random": RandomMasking(), "block": BlockMasking(), "grid": GridMasking()}


def test_each_kind_hides_what_its_sampler_hides():
    images = torch.rand(2, 3, 16, 24) * 0.4
    columns = mask_kinds(images, (4, 4), seed=5)
    assert torch.equal(columns.pop("original"), images)
    assert list(columns) == ["random 50 %", "random 75 %", "random 90 %", "block 50 %", "block 75 %", "grid 75 %"]
    noise = sample_noise(torch.arange(2), 24, seed=5, epoch=0)
    for title, shown in columns.items():
        kind, percent = title.split()[:2]
        mask = SHOWN[kind](noise, (4, 6), int(percent) / 100)
        for image in range(2):
            for patch in range(24):
                top, left = patch // 6 * 4, patch % 6 * 4
                cell = (image, slice(None), slice(top, top + 4), slice(left, left + 4))
                is_hidden = patch in mask.masked[image].tolist()
                assert torch.equal(shown[cell], torch.full((3, 4, 4), 0.5) if is_hidden else images[cell])


def test_odd_grids_have_no_grid_mask():
    with pytest.raises(ValueError, match=r"^grid masking needs even numbers"):
        mask_kinds(torch.rand(1, 1, 12, 32), (4, 4))
