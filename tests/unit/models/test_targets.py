import math
import statistics

import pytest
import torch

from mae_lightning.models import NormalizedPixels, PatchMask, Pixels, Target, gather_tokens, patchify
from mae_lightning.models.targets import neighbour_weights

GRID = (2, 3)
PATCH = (2, 2)


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.randn(2, 6, 8, dtype=torch.float64) * 3 + 1


@pytest.fixture
def mask() -> PatchMask:
    return PatchMask(kept=torch.tensor([[0, 5], [1, 2]]), masked=torch.tensor([[1, 2, 3, 4], [0, 3, 4, 5]]))


def test_pixels_are_themselves(patches, mask):
    target = Pixels()
    assert torch.equal(target(patches), patches)
    assert torch.equal(target.to_pixels(patches + 1, patches, mask, GRID, PATCH), patches + 1)
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
    pixels = target.to_pixels(target(patches), patches, mask, GRID, PATCH, "truth")
    torch.testing.assert_close(pixels, patches)
    assert target.pixel_modes["truth"] == "uses ground truth"
    assert target.pixel_modes["visible"] == "statistics of the visible neighbours"


def first_guess(patches, mask, image, patch):
    """Mean and deviation: a patch's own where it is visible, else the visible ones' weighted by distance."""
    own = [(p // 3, p % 3, patches[image, p].tolist()) for p in mask.kept[image].tolist()]
    known = {(row, column): (statistics.mean(v), math.sqrt(statistics.variance(v) + 1e-6)) for row, column, v in own}
    place = (patch // 3, patch % 3)
    if place in known:
        return known[place]
    weights = {seen: math.exp(-(math.dist(seen, place) ** 2) / 2) for seen in known}
    total = sum(weights.values())
    return tuple(sum(weights[seen] * known[seen][i] for seen in known) / total for i in (0, 1))


def test_statistics_of_visible_neighbours_solve_the_seams(patches, mask):
    """The dense least squares over every pair of pixels on two sides of a seam, equation by equation."""
    prediction = torch.randn_like(patches)
    pixels = NormalizedPixels().to_pixels(prediction, patches, mask, GRID, PATCH, "visible")
    for image in range(2):
        visible = mask.kept[image].tolist()
        guesses = [first_guess(patches, mask, image, patch) for patch in range(6)]
        shown = prediction[image].clone()
        for patch in visible:
            shown[patch] = (patches[image, patch] - guesses[patch][0]) / guesses[patch][1]
        shown = shown.view(6, 2, 2, 2)  # row, column, channel
        rows, values = [], []
        for patch in range(6):
            seams = []
            if patch % 3 < 2:
                seams.append((patch + 1, shown[patch, :, 1], shown[patch + 1, :, 0]))
            if patch < 3:
                seams.append((patch + 3, shown[patch, 1], shown[patch + 3, 0]))
            for other, here, there in seams:
                for x, y in zip(here.flatten().tolist(), there.flatten().tolist(), strict=True):
                    row = [0.0] * 12
                    row[2 * patch], row[2 * patch + 1], row[2 * other], row[2 * other + 1] = x, 1.0, -y, -1.0
                    rows.append([value / math.sqrt(4) for value in row])
                    values.append(0.0)
            weight = math.sqrt(1e4 if patch in visible else 0.01)
            for place, guess in ((2 * patch, guesses[patch][1]), (2 * patch + 1, guesses[patch][0])):
                rows.append([weight * (column == place) for column in range(12)])
                values.append(weight * guess)
        equations = torch.tensor(rows, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
        solved = torch.linalg.lstsq(*equations).solution.view(6, 2)
        for patch in mask.masked[image].tolist():
            expected = prediction[image, patch] * solved[patch, 0].clamp(min=0) + solved[patch, 1]
            torch.testing.assert_close(pixels[image, patch], expected, rtol=1e-6, atol=1e-6)


def test_a_perfect_prediction_is_brought_back_better_than_from_neighbours_alone():
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 16), torch.linspace(0, 5, 24), indexing="ij")
    image = (rows.sin() + columns.cos()).view(1, 1, 16, 24)
    patches = patchify(image, (4, 4))
    mask = PatchMask.from_noise(torch.rand(1, 24, generator=torch.Generator().manual_seed(0)), 0.5)
    target = NormalizedPixels()
    pixels = target.to_pixels(target(patches), patches, mask, (4, 6), (4, 4))
    error = (pixels - patches)[mask.is_masked].abs().mean()
    guess = neighbour_weights(mask, (4, 6)) @ gather_tokens(patches.mean(-1, keepdim=True), mask.kept)
    alone = (guess - patches.mean(-1, keepdim=True))[mask.is_masked].abs().mean()
    assert error < alone / 2


def test_statistics_of_visible_neighbours_do_not_leak_masked_pixels(patches, mask):
    prediction = torch.randn_like(patches)
    changed = torch.where(mask.is_masked.unsqueeze(-1), torch.randn_like(patches) * 100, patches)
    target = NormalizedPixels()
    before, after = (target.to_pixels(prediction, truth, mask, GRID, PATCH, "visible") for truth in (patches, changed))
    assert torch.equal(before, after)
    assert not torch.equal(
        *(target.to_pixels(prediction, truth, mask, GRID, PATCH, "truth") for truth in (patches, changed))
    )
    seen = patches.clone().scatter_add(
        1, mask.kept[..., None].expand(-1, -1, 8), torch.ones_like(gather_tokens(patches, mask.kept))
    )
    assert not torch.equal(before, target.to_pixels(prediction, seen, mask, GRID, PATCH, "visible"))


def test_a_far_visible_patch_still_gives_its_statistics():
    patches = torch.randn(1, 400, 4)
    kept = torch.tensor([[0]])
    mask = PatchMask(kept=kept, masked=torch.arange(1, 400).unsqueeze(0))
    pixels = NormalizedPixels().to_pixels(torch.zeros_like(patches), patches, mask, (1, 400), (2, 2), "visible")
    hidden = pixels[:, 1:]
    assert hidden.isfinite().all()
    torch.testing.assert_close(hidden[:, -1], patches[:, 0].mean().expand_as(hidden[:, -1]), rtol=0.1, atol=0.1)


def test_unknown_ways_back_are_refused(patches, mask):
    with pytest.raises(ValueError, match=r"^Pixels has no way back to pixels called 'truth'; it has visible$"):
        Pixels().to_pixels(patches, patches, mask, GRID, PATCH, "truth")
    with pytest.raises(ValueError, match=r"^NormalizedPixels .* called 'guess'; it has visible, truth$"):
        NormalizedPixels().to_pixels(patches, patches, mask, GRID, PATCH, "guess")


def test_a_target_without_a_way_back_says_so(patches, mask):
    class Mean(Target):
        def num_outputs(self, patch_pixels):
            return 1

        def forward(self, patches):
            return patches.mean(dim=-1, keepdim=True)

    with pytest.raises(ValueError, match=r"^Mean has no way from a prediction back to pixels, so it cannot be drawn$"):
        Mean().to_pixels(patches, patches, mask, GRID, PATCH)
    assert not Mean.pixel_modes
