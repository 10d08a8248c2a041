from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mae_lightning.models import MaskSampler, PatchMask, RandomMasking, gather_tokens, num_kept_patches, sample_noise


def test_keeps_the_patches_with_the_smallest_noise_in_ascending_order():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.7], [0.2, 0.8, 0.6, 0.4, 0.0]])
    mask = PatchMask.from_noise(noise, 0.6)
    assert mask.kept.tolist() == [[1, 3], [0, 4]]
    assert mask.masked.tolist() == [[0, 2, 4], [1, 2, 3]]
    assert mask.is_masked.tolist() == [[True, False, True, False, True], [False, True, True, True, False]]


def test_ties_keep_the_earlier_patch():
    mask = PatchMask.from_noise(torch.zeros(1, 1000), 0.75)
    assert mask.kept[0].tolist() == list(range(250))


@given(st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 2**31))
def test_kept_and_masked_split_the_patches(num_patches, mask_ratio, seed):
    noise = torch.rand(3, num_patches, generator=torch.Generator().manual_seed(seed))
    num_kept = int(num_patches * (1 - mask_ratio))
    if not 0 < num_kept < num_patches:
        return
    mask = PatchMask.from_noise(noise, mask_ratio)
    assert mask.kept.shape[1] == num_kept
    for row in range(3):
        assert sorted(mask.kept[row].tolist() + mask.masked[row].tolist()) == list(range(num_patches))
        by_noise = sorted(range(num_patches), key=lambda patch: float(noise[row, patch]))
        assert mask.kept[row].tolist() == sorted(by_noise[:num_kept])


@pytest.mark.parametrize(
    ("num_patches", "mask_ratio", "num_kept"),
    [(196, 0.75, 49), (256, 0.75, 64), (196, 0.6, 78), (10, 0.75, 2), (64, 0.9, 6), (36, 0.6, 14), (196, 0.9, 19)],
)
def test_count_is_rounded_down(num_patches, mask_ratio, num_kept):
    assert num_kept_patches(num_patches, mask_ratio) == num_kept


@pytest.mark.parametrize("mask_ratio", [-0.1, 0.0, 0.99, 1.0, 1.5])
def test_ratio_that_leaves_nothing_to_keep_or_to_mask_is_refused(mask_ratio):
    with pytest.raises(ValueError, match=rf"^mask_ratio {mask_ratio:g} keeps -?\d+ of 16 patches; .* 1 to 15 of them"):
        num_kept_patches(16, mask_ratio)


def test_gathers_tokens():
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert gather_tokens(tokens, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
    shared = gather_tokens(tokens[:1], torch.tensor([[2], [1]]))
    assert shared.tolist() == [[[4, 5]], [[2, 3]]]


def splitmix64(state: int) -> int:
    """The published algorithm on Python's integers."""
    word = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & word
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & word
    return state ^ (state >> 31)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (42, 7), (-1, 1599), (2**62, 2**40)])
def test_noise_is_splitmix64(seed, epoch):
    index = torch.tensor([0, 1, 5, 1_281_166])
    noise = sample_noise(index, 6, seed, epoch)
    assert noise.dtype == torch.float32
    for row, sample in enumerate(index.tolist()):
        stream = splitmix64(splitmix64(splitmix64(seed % 2**64) ^ epoch) ^ sample)
        expected = [splitmix64(stream + patch * 0x9E3779B97F4A7C15) >> 40 for patch in range(6)]
        assert noise[row].tolist() == [bits / 2**24 for bits in expected]


def test_splitmix64_as_published():
    """First values from state 1234567, as listed on rosettacode.org (Pseudo-random numbers/Splitmix64)."""
    states = [1234567 + step * 0x9E3779B97F4A7C15 for step in range(3)]
    assert [splitmix64(state) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_noise_never_changes():
    """Golden values: a change of them changes the masks of every run."""
    noise = sample_noise(torch.tensor([0, 3]), 4, seed=0, epoch=0)
    assert (noise * 2**24).long().tolist() == GOLDEN


GOLDEN = [[2175092, 837519, 11246243, 11585360], [3539207, 15267149, 13017053, 5601570]]


@pytest.mark.gpu
def test_noise_and_masks_are_the_same_on_an_accelerator():
    index = torch.arange(64) * 12_345_678_901
    noise = sample_noise(index, 196, seed=-3, epoch=5)
    there = sample_noise(index.cuda(), 196, seed=-3, epoch=5)
    assert torch.equal(there.cpu(), noise)
    assert torch.equal(PatchMask.from_noise(there, 0.75).kept.cpu(), PatchMask.from_noise(noise, 0.75).kept)


def test_noise_is_uniform_and_uncorrelated():
    noise = sample_noise(torch.arange(1000), 200, seed=1, epoch=2)
    assert noise.min() >= 0
    assert noise.max() < 1
    values = noise.flatten().double().sort().values
    count = len(values)
    steps = torch.arange(1, count + 1) / count
    distance = torch.maximum((steps - values).abs(), (values - steps + 1 / count).abs()).max()
    assert distance < 1.63 / count**0.5  # Kolmogorov and Smirnov's bound at the 1 % level
    neighbours = {"patch": (noise[:, 1:], noise[:, :-1]), "sample": (noise[1:], noise[:-1])}
    neighbours["epoch"] = (noise, sample_noise(torch.arange(1000), 200, seed=1, epoch=3))
    neighbours["seed"] = (noise, sample_noise(torch.arange(1000), 200, seed=2, epoch=2))
    for name, pair in neighbours.items():
        correlation = torch.corrcoef(torch.stack([half.flatten() for half in pair]))[0, 1]
        assert correlation.abs() < 3.3 / pair[0].numel() ** 0.5, name
    assert (noise.mean(dim=0) - 0.5).abs().max() < 4.5 * (1 / 12 / 1000) ** 0.5


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    alone = sample_noise(torch.tensor([17]), 9, seed=3, epoch=4)
    among = sample_noise(torch.tensor([5, 17, 2]), 9, seed=3, epoch=4)
    assert torch.equal(alone[0], among[1])
    assert torch.equal(alone, sample_noise(torch.tensor([17]), 30, seed=3, epoch=4)[:, :9])


def test_masks_of_one_noise_nest_across_ratios():
    noise = sample_noise(torch.arange(5), 49, seed=0, epoch=0)
    hidden = [PatchMask.from_noise(noise, ratio).is_masked for ratio in (0.25, 0.5, 0.75, 0.9)]
    for smaller, larger in pairwise(hidden):
        assert (larger | ~smaller).all()
        assert larger.sum() > smaller.sum()


def test_random_masking_ignores_the_grid():
    noise = sample_noise(torch.arange(2), 12, seed=0, epoch=0)
    mask = RandomMasking()(noise, (3, 4), 0.5)
    assert torch.equal(mask.kept, PatchMask.from_noise(noise, 0.5).kept)


def test_a_sampler_of_ones_own():
    class KeepTop(MaskSampler):
        def __call__(self, noise, grid, mask_ratio):
            place = torch.arange(noise.shape[1], device=noise.device)
            return PatchMask.from_noise((place // grid[1]).expand_as(noise).float(), mask_ratio)

    mask = KeepTop()(torch.rand(2, 12), (3, 4), 0.6)
    assert mask.kept.tolist() == [[0, 1, 2, 3]] * 2
