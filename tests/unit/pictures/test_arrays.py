import math

import numpy as np
import pytest
import timm
import torch

from mae_lightning.evaluation.encoders import FrozenEncoder
from mae_lightning.models import Normalization, ViTSize, build_classifier, build_encoder
from mae_lightning.pictures.features import (
    component_colours,
    component_scores,
    image_features,
    nearest_neighbours,
    patch_features,
)
from mae_lightning.pictures.filters import principal_components
from mae_lightning.pictures.positions import position_similarities, sincos_encoding
from mae_lightning.pictures.style import NotDrawnError
from mae_lightning.pictures.training_curves import Curve, spread_of


def eigenvectors(samples):
    """Of the covariance, summed sample by sample, the largest first."""
    samples = samples.double().numpy()
    mean, covariance = samples.mean(axis=0), np.zeros((samples.shape[1],) * 2)
    for sample in samples:
        covariance += np.outer(sample - mean, sample - mean)
    values, vectors = np.linalg.eigh(covariance)
    return values[::-1] / values.sum(), vectors.T[::-1]


def test_principal_components_are_the_covariances_eigenvectors_up_to_sign():
    filters = torch.randn(40, 2, 3, 2) * torch.arange(1, 13).view(2, 3, 2)
    found = principal_components(filters, 5)
    share, vectors = eigenvectors(filters.flatten(1))
    assert found.share.tolist() == pytest.approx(share[:5].tolist(), rel=1e-4)
    for axis, vector in zip(found.axes.flatten(1).numpy(), vectors, strict=False):
        assert abs(float(axis @ vector)) == pytest.approx(1, abs=1e-4)
        assert axis[np.abs(axis).argmax()] > 0
    assert found.axes.shape == (5, 2, 3, 2)
    assert len(principal_components(filters[:4], 28).axes) == 4


def test_feature_components_are_coordinates_along_them():
    features = torch.randn(2, 3, 4, 6) * torch.arange(1, 7)
    scores = component_scores(features)
    _, vectors = eigenvectors(features.flatten(0, 2))
    tokens = features.flatten(0, 2).double()
    expected = ((tokens - tokens.mean(dim=0)).numpy() @ vectors[:3].T).reshape(2, 3, 4, 3)
    for component in range(3):
        found = scores[..., component].numpy()
        assert np.allclose(found, expected[..., component], atol=1e-3) or np.allclose(
            found, -expected[..., component], atol=1e-3
        )
    shown = component_colours(scores, (6, 8))
    assert shown.shape == (2, 3, 6, 8)
    assert (shown.min(), shown.max()) == (0, 1)
    assert torch.equal(shown[:, :, ::2, ::2], shown[:, :, 1::2, 1::2])  # each token is a square


def test_patch_features_are_the_tokens_after_the_norm_by_place():
    encoder = build_encoder(ViTSize(8, 1, 2, 4, num_registers=2), image_size=(8, 12), num_channels=1).eval()
    images = torch.randn(2, 1, 8, 12)
    tokens = encoder.forward_features(images)
    torch.testing.assert_close(patch_features(encoder, images)[1, 1, 2], tokens[1, 3 + 5].detach())
    frozen = FrozenEncoder("", encoder, Normalization([0.0], [1.0]), (8, 12), 1, "mean")
    torch.testing.assert_close(image_features(encoder, images), frozen.pool(frozen.tokens(images)))
    resnet = timm.create_model("resnet18", in_chans=1).eval()
    assert patch_features(resnet, torch.randn(1, 1, 64, 32)).shape == (1, 2, 1, 512)


def test_neighbours_are_those_of_a_loop():
    bank, queries = torch.randn(9, 4), torch.randn(3, 4)
    cosine, index = nearest_neighbours(bank, queries, 4)
    for q, query in enumerate(queries):
        values = [float(query @ other / query.norm() / other.norm()) for other in bank]
        order = sorted(range(9), key=lambda place: -values[place])[:4]
        assert index[q].tolist() == order
        assert cosine[q].tolist() == pytest.approx([values[place] for place in order], abs=1e-6)
    assert nearest_neighbours(bank, queries, 20)[1].shape == (3, 9)


def classifier(positions, at="stem"):
    options = {"num_classes": 0, "image_size": (8, 12), "num_channels": 1}
    return build_classifier(ViTSize(8, 2, 2, 4), positions=positions, positions_at=at, **options)


@pytest.mark.parametrize("positions", ["learned_1d", "learned_2d", "sincos_1d", "sincos_2d", "learned_from_sincos"])
def test_position_similarity_is_that_of_a_loop(positions):
    encoder = classifier(positions)
    (name, similarity), *others = position_similarities(encoder).items()
    assert (name, others) == ("", [])
    table = encoder.pos_embed[0] if encoder.pos_embed is not None else encoder.positions[0]()
    vectors = table.detach()[-6:].tolist()
    for p, here in enumerate(vectors):
        for o, there in enumerate(vectors):
            dot = sum(a * b for a, b in zip(here, there, strict=True)) / math.hypot(*here) / math.hypot(*there)
            assert float(similarity[p // 3, p % 3, o // 3, o % 3]) == pytest.approx(dot, abs=1e-5)


def test_positions_of_every_layer_are_a_panel_each_and_none_are_refused():
    panels = position_similarities(classifier("learned_1d", "every_layer"))
    assert list(panels) == ["added at block 1", "added at block 2"]
    for encoder in (classifier("none"), classifier("relative"), timm.create_model("resnet18")):
        with pytest.raises(NotDrawnError):
            position_similarities(encoder)


def test_the_encoding_is_the_papers_formula():
    encoding = sincos_encoding(5, 6)
    for p in range(5):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            assert encoding[p, 2 * i : 2 * i + 2].tolist() == pytest.approx([math.sin(angle), math.cos(angle)])
    with pytest.raises(NotDrawnError, match="even width, not 7"):
        sincos_encoding(5, 7)


def test_seeds_are_compared_at_the_steps_that_all_have():
    first = Curve(np.array([1, 2, 4]), np.array([3.0, 2.0, 1.0]))
    second = Curve(np.array([2, 3, 4]), np.array([4.0, 9.0, 2.0]))
    spread = spread_of([first, second])
    assert (spread.steps.tolist(), spread.mean.tolist(), spread.num_runs) == ([2, 4], [3.0, 1.5], 2)
    assert spread.deviation.tolist() == pytest.approx([2**0.5, 0.5**0.5])
    assert spread_of([first]).deviation.tolist() == [0, 0, 0]
    with pytest.raises(NotDrawnError, match="no logged step in common"):
        spread_of([first, Curve(np.array([7]), np.array([1.0]))])
