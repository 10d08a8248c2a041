import math

import pytest
import torch

from mae_lightning.evaluation.knn import knn_predict


def loop_knn(bank, labels, queries, num_classes, k, temperature):
    """Neighbour by neighbour, as the protocol is worded."""
    predicted = []
    for query in queries:
        cosines = [float(query @ x / query.norm() / x.norm()) for x in bank]
        order = sorted(range(len(bank)), key=lambda i: -cosines[i])[:k]
        votes = [0.0] * num_classes
        for i in order:
            votes[int(labels[i])] += math.exp(cosines[i] / temperature)
        predicted.append(max(range(num_classes), key=votes.__getitem__))
    return torch.tensor(predicted)


@pytest.mark.parametrize("chunk_size", [3, 1024])
def test_equals_a_loop(chunk_size):
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40, 6, generator=generator), torch.randn(17, 6, generator=generator)
    labels = torch.randint(4, (40,), generator=generator)
    ours = knn_predict(bank, labels, queries, num_classes=4, num_neighbours=5, chunk_size=chunk_size)
    assert torch.equal(ours, loop_knn(bank, labels, queries, 4, 5, 0.07))


def test_near_neighbours_outweigh_many_far_ones():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    assert knn_predict(bank, labels, torch.tensor([[1.0, 0.01]]), num_classes=2).tolist() == [0]
    flat = knn_predict(bank, labels, torch.tensor([[1.0, 0.01]]), num_classes=2, temperature=100.0)
    assert flat.tolist() == [1]


def test_empty_bank_is_an_error():
    with pytest.raises(ValueError, match="labelled bank and got 0 samples"):
        knn_predict(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.zeros(1, 2), num_classes=2)
