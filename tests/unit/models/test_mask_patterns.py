"""Block and grid masks against loops that follow the text."""

import math

import pytest
import torch

from mae_lightning.models import BlockMasking, GridMasking, PatchMask, more_noise, sample_noise
from mae_lightning.models.mask_patterns import NUM_BLOCKS


def noise_of(num_images: int, num_patches: int) -> torch.Tensor:
    return sample_noise(torch.arange(num_images), num_patches, seed=3, epoch=1)


def block_by_loop(noise: list[float], draws: list[float], grid: tuple[int, int], num_masked: int) -> list[int]:
    """BEiT's Algorithm 1 on one image, trimmed and filled to the exact count."""
    (rows, columns), hidden = grid, set()
    smallest = min(16, num_masked)
    for turn in range(NUM_BLOCKS):
        missing = num_masked - len(hidden)
        for_area, for_aspect, for_top, for_left = draws[4 * turn : 4 * turn + 4]
        area = smallest + for_area * max(0, missing - smallest)
        aspect = math.exp(math.log(0.3) + for_aspect * (math.log(1 / 0.3) - math.log(0.3)))
        height = min(rows, max(1, round(math.sqrt(area * aspect))))
        width = min(columns, max(1, round(math.sqrt(area / aspect))))
        top, left = int(for_top * (rows - height + 1)), int(for_left * (columns - width + 1))
        for row in range(top, top + height):
            for column in range(left, left + width):
                if len(hidden) < num_masked:
                    hidden.add(row * columns + column)
    others = sorted(set(range(rows * columns)) - hidden, key=lambda patch: noise[patch], reverse=True)
    return sorted(hidden | set(others[: num_masked - len(hidden)]))


@pytest.mark.parametrize(("grid", "ratio"), [((14, 14), 0.5), ((14, 14), 0.75), ((7, 7), 0.75), ((3, 8), 0.9)])
def test_blocks_are_beits_with_the_exact_count(grid, ratio):
    num_patches = grid[0] * grid[1]
    noise = noise_of(40, num_patches)
    mask = BlockMasking()(noise, grid, ratio)
    num_masked = num_patches - int(num_patches * (1 - ratio))
    draws = more_noise(noise, 4 * NUM_BLOCKS)
    for image in range(40):
        expected = block_by_loop(noise[image].tolist(), draws[image].tolist(), grid, num_masked)
        assert mask.masked[image].tolist() == expected
        assert sorted(mask.kept[image].tolist() + expected) == list(range(num_patches))


def test_few_images_need_filling():
    noise = noise_of(10_000, 196)
    mask = BlockMasking()(noise, (14, 14), 0.75)
    same_blocks = BlockMasking()(torch.cat([noise[:, :4], 1 - noise[:, 4:]], dim=1), (14, 14), 0.75)
    assert (mask.masked != same_blocks.masked).any(dim=1).float().mean() < 2e-3


def test_blocks_hide_neighbours_together():
    noise = noise_of(200, 196)

    def neighbours_alike(mask: PatchMask) -> float:
        hidden = mask.is_masked.view(-1, 14, 14)
        return float((hidden[:, 1:] == hidden[:, :-1]).float().mean())

    assert neighbours_alike(BlockMasking()(noise, (14, 14), 0.5)) > 0.8
    assert neighbours_alike(PatchMask.from_noise(noise, 0.5)) < 0.55


@pytest.mark.parametrize("sampler", [BlockMasking(), GridMasking()])
def test_a_mask_does_not_depend_on_its_batch(sampler):
    noise = noise_of(6, 64)
    together, alone = sampler(noise, (8, 8), 0.75), sampler(noise[4:5], (8, 8), 0.75)
    assert torch.equal(together.kept[4:5], alone.kept)
    assert torch.equal(together.noise, noise)


def test_blocks_differ_between_samples_and_epochs():
    masks = [BlockMasking()(sample_noise(torch.arange(3), 64, 0, epoch), (8, 8), 0.5).masked for epoch in (0, 1)]
    rows = {tuple(row) for mask in masks for row in mask.tolist()}
    assert len(rows) == 6


def test_further_noise_is_uniform_and_follows_from_the_noise():
    noise = noise_of(500, 9)
    further = more_noise(noise, 100)
    assert further.min() >= 0
    assert further.max() < 1
    assert abs(float(further.mean()) - 0.5) < 0.005
    assert torch.equal(more_noise(noise[7:8], 10), further[7:8, :10])
    assert len({tuple(row) for row in further.tolist()}) == 500
    assert more_noise(noise[:, :1], 3).shape == (500, 3)


def test_grid_keeps_one_of_each_two_by_two():
    mask = GridMasking()(noise_of(2, 24), (4, 6), 0.75)
    assert mask.kept.tolist() == [[0, 2, 4, 12, 14, 16]] * 2
    for row in range(2):
        for column in range(3):
            square = [(2 * row + i) * 6 + 2 * column + j for i in (0, 1) for j in (0, 1)]
            assert sum(patch in mask.kept[0].tolist() for patch in square) == 1
    assert GridMasking()(noise_of(1, 196), (14, 14), 0.75).kept.shape == (1, 49)


@pytest.mark.parametrize(
    ("grid", "ratio", "message"),
    [
        ((4, 4), 0.5, r"^grid masking hides three of each 2 x 2 patches: mask_ratio must be 0.75, not 0.5$"),
        ((7, 4), 0.75, r"^grid masking needs even numbers of rows and columns of patches, not 7 x 4; .*$"),
    ],
)
def test_grid_refuses_what_is_not_defined(grid, ratio, message):
    with pytest.raises(ValueError, match=message):
        GridMasking()(noise_of(1, grid[0] * grid[1]), grid, ratio)
