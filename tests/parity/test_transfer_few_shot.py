"""Few-shot least squares on the shipped images against scikit-learn's ridge regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from mae_lightning.data import ShardDataModule
from mae_lightning.data.plan import draw
from mae_lightning.data.subsets import labelled_part
from mae_lightning.evaluation.features import Labelled, batches_of
from mae_lightning.evaluation.few_shot import few_shot, least_squares_scores


@pytest.fixture(scope="module")
def pixels():
    """Raw pixels of the shipped images as features."""
    data = ShardDataModule("fashion_mnist", image_size=14)
    sets = []
    for split in ("train", "val"):
        batches = list(batches_of(data.sources[split].manifest, data.evaluate, 512, 0))
        images = torch.cat([batch["image"][batch["valid"]] for batch in batches]).flatten(1).float() / 255
        sets.append(Labelled(images, torch.cat([batch["label"][batch["valid"]] for batch in batches])))
    return sets


def sklearn_scores(bank, queries, rows, ridge):
    shots, labels = bank.features[rows].double().numpy(), bank.labels[rows].numpy()
    center, scale = shots.mean(0), shots.std(0) + 1e-5

    def prepared(features):
        return np.hstack([(features - center) / scale, np.full((len(features), 1), 100.0)])

    model = Ridge(alpha=ridge, fit_intercept=False).fit(prepared(shots), np.where(np.eye(10)[labels] > 0, 1.0, -1.0))
    return model.predict(prepared(queries.features.double().numpy()))


@pytest.mark.parametrize("ridge", [1.0, 2.0**10])
def test_equals_scikit_learn(pixels, ridge):
    bank, queries = pixels
    result = few_shot(bank, queries, ridge=ridge, seed=3)
    assert len(result.accuracies) == 10
    for number, accuracy in enumerate(result.accuracies):
        rows = labelled_part(bank.labels.numpy(), 5, draw(3, "few-shot", number))
        assert np.bincount(bank.labels[rows]).tolist() == [5] * 10
        expected = sklearn_scores(bank, queries, rows, ridge)
        shots = bank[torch.from_numpy(rows)]
        scores = least_squares_scores(shots.features, shots.labels, queries.features, 10, ridge)
        np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-7, atol=1e-9)
        hits = expected.argmax(1) == queries.labels.numpy()
        assert accuracy == pytest.approx(hits.mean(), abs=1e-12)
    assert result.mean == pytest.approx(np.mean(result.accuracies))
    assert result.deviation == pytest.approx(np.std(result.accuracies, ddof=1))


def test_is_deterministic_for_a_seed(pixels):
    bank, queries = pixels
    first = few_shot(bank, queries, num_draws=3, seed=1).accuracies
    assert first == few_shot(bank, queries, num_draws=3, seed=1).accuracies
    assert first != few_shot(bank, queries, num_draws=3, seed=2).accuracies
    assert len(set(first)) > 1
