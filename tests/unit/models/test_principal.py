"""Principal components of patches against an eigendecomposition by hand and scikit-learn."""

import pytest
import torch
from sklearn.decomposition import PCA

from mae_lightning.models import MaskedAutoencoder, PatchMask, PatchPCA, TransformerDecoder, ViTSize, patch_sums

GRID, PATCH = (2, 3), (2, 2)


def fitted(patches: torch.Tensor, **options) -> PatchPCA:
    target = PatchPCA(**options)
    target.prepare((4, 6), PATCH, 4)
    assert not target.is_fitted
    assert target(patches).isnan().all()
    target.fit(*patch_sums(patches))
    assert target.is_fitted
    return target


@pytest.fixture
def patches() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(20, 6, 16) @ torch.diag(torch.linspace(0.2, 3, 16)) @ torch.randn(16, 16) + 5


@pytest.fixture
def mask() -> PatchMask:
    return PatchMask.from_noise(torch.rand(20, 6), 0.5)


@pytest.mark.parametrize("whiten", [False, True])
def test_coefficients_are_scikit_learns(patches, whiten):
    target = fitted(patches, share=0.25, whiten=whiten)
    flat = patches.flatten(0, 1).double().numpy()
    theirs = PCA(4, whiten=whiten, svd_solver="full").fit(flat)
    expected = torch.tensor(theirs.transform(flat)).view(20, 6, 4)
    count = len(flat)
    signs = torch.tensor([1.0 if row[abs(row).argmax()] > 0 else -1.0 for row in theirs.components_])
    scale = (count / (count - 1)) ** 0.5 if whiten else 1.0  # theirs is the unbiased deviation
    torch.testing.assert_close(target(patches).double(), expected * signs * scale, rtol=1e-3, atol=1e-3)
    shares = target.eigenvalues[:4] / target.eigenvalues.sum()
    assert shares.tolist() == pytest.approx(theirs.explained_variance_ratio_.tolist(), rel=1e-5)


def test_components_by_power_iteration(patches):
    """The first component is the direction of greatest variance, found without an eigensolver."""
    target = fitted(patches, share=1 / 16)
    centred = (patches - patches.mean((0, 1))).flatten(0, 1).double()
    direction = torch.ones(16, dtype=torch.float64)
    for _ in range(3000):
        direction = centred.T @ (centred @ direction)
        direction /= direction.norm()
    direction = direction * direction[direction.abs().argmax()].sign()
    torch.testing.assert_close(target.components[0].double(), direction, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("whiten", [False, True])
def test_the_way_back_is_the_projection(patches, mask, whiten):
    target = fitted(patches, share=0.5, whiten=whiten)
    pixels = target.to_pixels(target(patches), patches, mask, GRID, PATCH)
    basis, mean = target.components, patches.mean((0, 1))
    for patch in range(6):
        centred = patches[0, patch] - mean
        projected = mean + sum((centred @ row) * row for row in basis)
        torch.testing.assert_close(pixels[0, patch], projected, rtol=1e-3, atol=1e-3)
    whole = fitted(patches, share=1.0, whiten=whiten)
    torch.testing.assert_close(
        whole.to_pixels(whole(patches), patches, mask, GRID, PATCH), patches, rtol=1e-3, atol=1e-3
    )
    with pytest.raises(ValueError, match="has no way back to pixels called 'truth'; it has visible"):
        target.to_pixels(target(patches), patches, mask, GRID, PATCH, "truth")


def test_sums_add_up_over_batches(patches):
    whole = patch_sums(patches)
    parts = zip(patch_sums(patches[:7]), patch_sums(patches[7:]), strict=True)
    for one, (first, second) in zip(whole, parts, strict=True):
        torch.testing.assert_close(first + second, one)


def test_an_eighth_is_96_of_768():
    assert PatchPCA().num_outputs(768) == 96
    assert PatchPCA().num_outputs(4) == 1


def test_the_model_predicts_coefficients_and_keeps_the_components(patches):
    build = [
        MaskedAutoencoder(
            ViTSize(16, 1, 2, PATCH), TransformerDecoder(depth=1, dim=8, num_heads=2), PatchPCA(0.25),
            image_size=(4, 6), num_channels=4,
        )
        for _ in range(2)
    ]  # fmt: skip
    model, other = build
    images = model.images(patches)
    model.target.fit(*patch_sums(patches))
    mask = PatchMask.from_noise(torch.rand(20, 6), 0.5)
    output = model(images, mask)
    coefficients = (patches - patches.mean((0, 1))) @ model.target.components.T
    for place, patch in enumerate(mask.masked[3].tolist()):
        expected = (output.prediction[3, place] - coefficients[3, patch]).square().mean()
        torch.testing.assert_close(output.loss_per_patch[3, place], expected, rtol=1e-3, atol=1e-3)
    other.load_state_dict(model.state_dict())
    assert other.target.is_fitted
    torch.testing.assert_close(other(images, mask).loss_per_patch, output.loss_per_patch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, r"^share 0 of the principal coefficients must be above 0 and at most 1$"),
        ({"share": 1.5}, r"^share 1.5 of"),
        ({"num_images": 0}, r"^num_images 0 to fit principal components on must be at least 1$"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PatchPCA(**options)
