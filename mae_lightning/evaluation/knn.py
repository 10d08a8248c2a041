"""k-nearest-neighbour accuracy of frozen features."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


def knn_predict(
    bank: Float[Tensor, "sample dim"],
    bank_labels: Int64[Tensor, "sample"],
    queries: Float[Tensor, "query dim"],
    *,
    num_classes: int,
    num_neighbours: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 1024,
) -> Int64[Tensor, "query"]:
    """Classes voted by the nearest neighbours, weighted by exp(cosine / temperature).

    The protocol of Wu et al. 2018 (arXiv 1805.01978, section 3.4): features are L2-normalised, the neighbours' weights
    are summed a class. Memory stays at ``chunk_size`` x samples.

    Raises:
        ValueError: The bank is empty.
    """
    if len(bank) == 0:
        raise ValueError("k-NN needs a labelled bank and got 0 samples; give training data with labels")
    bank, queries = F.normalize(bank.float(), dim=1), F.normalize(queries.float(), dim=1)
    num_neighbours = min(num_neighbours, len(bank))
    chunks = torch.split(queries, chunk_size)
    predicted = [_vote(chunk @ bank.T, bank_labels, num_classes, num_neighbours, temperature) for chunk in chunks]
    return torch.cat(predicted) if predicted else bank_labels.new_empty(0)


def _vote(
    cosine: Float[Tensor, "query sample"],
    bank_labels: Int64[Tensor, "sample"],
    num_classes: int,
    num_neighbours: int,
    temperature: float,
) -> Int64[Tensor, "query"]:
    nearest, index = cosine.topk(num_neighbours, dim=1)
    votes = cosine.new_zeros(len(cosine), num_classes)
    votes.scatter_add_(1, bank_labels[index], (nearest / temperature).exp())
    return votes.argmax(dim=1)
