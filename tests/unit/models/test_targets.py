import math
import statistics

import pytest
import torch

from mae_lightning.models import NormalizedPixels, PatchMask, Pixels, Target, gather_tokens

GRID = (2, 3)


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randn(2, 6, 8, dtype=torch.float64) * 3 + 1


@pytest.fixture
def mask() -> PatchMask:
    return PatchMask(kept=torch.tensor([[0, 5], [1, 2]]), masked=torch.tensor([[1, 2, 3, 4], [0, 3, 4, 5]]))


def test_pixels_are_themselves(patches, mask):
    target = Pixels()
    assert torch.equal(target(patches), patches)
    assert torch.equal(target.to_pixels(patches + 1, patches, mask, GRID), patches + 1)
    assert target.num_outputs(48) == 48
    assert dict(target.pixel_modes) == {"visible": "raw output"}


def test_normalised_pixels_use_the_unbiased_variance_of_each_patch(patches):
    normalised = NormalizedPixels()(patches)
    for image in range(2):
        for patch in range(6):
            values = patches[image, patch].tolist()
            mean, std = statistics.mean(values), math.sqrt(statistics.variance(values) + 1e-6)
            expected = [(value - mean) / std for value in values]
            torch.testing.assert_close(normalised[image, patch].tolist(), expected, rtol=1e-12, atol=1e-12)


def test_a_constant_patch_normalises_to_zero():
    assert torch.equal(NormalizedPixels()(torch.full((1, 1, 4), 7.0)), torch.zeros(1, 1, 4))


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()])
def test_loss_is_the_mean_squared_error_of_a_patch(target, patches):
    prediction = torch.randn_like(patches)
    loss = target.loss(prediction, patches)
    for image in range(2):
        for patch in range(6):
            errors = [(p - t) ** 2 for p, t in zip(prediction[image, patch], patches[image, patch], strict=True)]
            torch.testing.assert_close(loss[image, patch], sum(errors) / 8)


def test_the_truths_own_statistics_undo_the_normalisation(patches, mask):
    target = NormalizedPixels()
    pixels = target.to_pixels(target(patches), patches, mask, GRID, "truth")
    torch.testing.assert_close(pixels, patches)
    assert target.pixel_modes["truth"] == "uses ground truth"
    assert target.pixel_modes["visible"] == "statistics of the visible neighbours"


def test_statistics_of_visible_neighbours_weigh_by_distance(patches, mask):
    prediction = torch.randn_like(patches)
    pixels = NormalizedPixels().to_pixels(prediction, patches, mask, GRID, "visible")
    for image in range(2):
        for patch in range(6):
            weights, means, stds = [], [], []
            for visible in mask.kept[image].tolist():
                squared = (patch // 3 - visible // 3) ** 2 + (patch % 3 - visible % 3) ** 2
                weights.append(math.exp(-squared / 2))
                values = patches[image, visible].tolist()
                means.append(statistics.mean(values))
                stds.append(math.sqrt(statistics.variance(values) + 1e-6))
            mean = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
            std = sum(w * s for w, s in zip(weights, stds, strict=True)) / sum(weights)
            torch.testing.assert_close(
                pixels[image, patch], prediction[image, patch] * std + mean, rtol=1e-6, atol=1e-6
            )


def test_statistics_of_visible_neighbours_do_not_leak_masked_pixels(patches, mask):
    prediction = torch.randn_like(patches)
    changed = torch.where(mask.is_masked.unsqueeze(-1), torch.randn_like(patches) * 100, patches)
    target = NormalizedPixels()
    before, after = (target.to_pixels(prediction, truth, mask, GRID, "visible") for truth in (patches, changed))
    assert torch.equal(before, after)
    assert not torch.equal(*(target.to_pixels(prediction, truth, mask, GRID, "truth") for truth in (patches, changed)))
    seen = patches.clone().scatter_add(
        1, mask.kept[..., None].expand(-1, -1, 8), torch.ones_like(gather_tokens(patches, mask.kept))
    )
    assert not torch.equal(before, target.to_pixels(prediction, seen, mask, GRID, "visible"))


def test_a_far_visible_patch_still_gives_its_statistics():
    patches = torch.randn(1, 400, 4)
    kept = torch.tensor([[0]])
    mask = PatchMask(kept=kept, masked=torch.arange(1, 400).unsqueeze(0))
    pixels = NormalizedPixels().to_pixels(torch.zeros_like(patches), patches, mask, (1, 400), "visible")
    torch.testing.assert_close(pixels, patches[:, :1].mean().expand_as(patches))


def test_unknown_ways_back_are_refused(patches, mask):
    with pytest.raises(ValueError, match=r"^Pixels has no way back to pixels called 'truth'; it has visible$"):
        Pixels().to_pixels(patches, patches, mask, GRID, "truth")
    with pytest.raises(ValueError, match=r"^NormalizedPixels .* called 'guess'; it has visible, truth$"):
        NormalizedPixels().to_pixels(patches, patches, mask, GRID, "guess")


def test_a_target_without_a_way_back_says_so(patches, mask):
    class Mean(Target):
        def num_outputs(self, patch_pixels):
            return 1

        def forward(self, patches):
            return patches.mean(dim=-1, keepdim=True)

    with pytest.raises(ValueError, match=r"^Mean has no way from a prediction back to pixels, so it cannot be drawn$"):
        Mean().to_pixels(patches, patches, mask, GRID)
    assert not Mean.pixel_modes
