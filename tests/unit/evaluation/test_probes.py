import pytest
import torch
from torch.nn import functional as F

from mae_lightning.data.subsets import hold_out
from mae_lightning.evaluation import few_shot as few_shot_module
from mae_lightning.evaluation import linear
from mae_lightning.evaluation.attentive import attentive_probe
from mae_lightning.evaluation.features import Labelled
from mae_lightning.evaluation.linear import LinearClassifiers, linear_probe

SCHEDULE = {"num_classes": 3, "num_steps": 20, "batch_size": 8, "seed": 5}


def blobs(size, dim=6, spread=1.0, seed=0, tokens=()):
    """Three classes of Gaussian features, with tokens of the same mean."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(3, dim, generator=torch.Generator().manual_seed(99)) * 2
    labels = torch.arange(size) % 3
    noise = torch.randn(size, *tokens, dim, generator=generator)
    return Labelled(centers[labels].view(size, *[1 for _ in tokens], dim) + spread * noise, labels)


def loop_sgd(data, lr):
    """One learning rate by autograd and torch's SGD under a cosine."""
    inputs = (data.features - data.features.mean(0)) / (data.features.std(0, correction=0) + 1e-6)
    layer = torch.nn.Linear(6, 3)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        rows = torch.randint(len(inputs), (8,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(layer(inputs[rows]), data.labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return torch.cat([layer.weight.T, layer.bias.unsqueeze(0)]).detach()


def test_many_learning_rates_at_once_are_each_alone():
    data = blobs(40)
    together = LinearClassifiers.fitted(data, [0.01, 0.1, 1.0], **SCHEDULE)
    for place, lr in enumerate([0.01, 0.1, 1.0]):
        torch.testing.assert_close(together.weights[place], loop_sgd(data, lr), rtol=1e-4, atol=1e-5)


def test_accuracies_are_counted_in_parts(monkeypatch):
    data, lengths = blobs(40, spread=3.0), []
    classifiers = LinearClassifiers.fitted(data, [0.01, 1.0], **SCHEDULE)
    standardised = linear._standardised
    monkeypatch.setattr(
        linear, "_standardised", lambda part, *rest: lengths.append(len(part)) or standardised(part, *rest)
    )
    whole, parts = classifiers.accuracies(data), classifiers.accuracies(data, chunk_size=16)
    assert lengths == [40, 16, 16, 8]
    assert torch.equal(whole, parts)
    scores = F.pad((data.features - classifiers.center) / classifiers.scale, (0, 1), value=1.0) @ classifiers.weights
    torch.testing.assert_close(whole, (scores.argmax(-1) == data.labels).float().mean(1))


def test_the_choice_is_the_hold_outs_and_queries_have_no_part_in_it():
    bank, queries = blobs(120, spread=3.0), blobs(90, spread=3.0, seed=1)
    probe = linear_probe(bank, queries, num_steps=50)
    assert probe.hold_out_accuracy[probe.chosen_lr] == max(probe.hold_out_accuracy.values())
    fit, held = hold_out(bank.labels.numpy(), 0.2, 0)
    schedule = SCHEDULE | {"num_steps": 50, "batch_size": 1024, "seed": 0}
    alone = LinearClassifiers.fitted(bank[torch.from_numpy(fit)], [probe.chosen_lr], **schedule)
    expected = alone.accuracies(bank[torch.from_numpy(held)]).item()
    assert probe.hold_out_accuracy[probe.chosen_lr] == pytest.approx(expected)
    wrong = Labelled(queries.features, (queries.labels + 1) % 3)
    other = linear_probe(bank, wrong, num_steps=50)
    assert (other.chosen_lr, other.hold_out_accuracy) == (probe.chosen_lr, probe.hold_out_accuracy)
    assert other.accuracy < probe.accuracy


def test_linear_probe_learns_what_is_linear():
    assert linear_probe(blobs(120, spread=0.3), blobs(90, spread=0.3, seed=1)).accuracy == 1.0


def one_telling_token(size, seed):
    """Noise, but for one token a sample, marked by the last channel, that has the class in its first."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    tokens = torch.randn(size, 9, 8, generator=generator)
    tokens[..., 7] = 0
    place = torch.randint(9, (size,), generator=generator)
    tokens[torch.arange(size), place] = 2.0 * F.one_hot(labels, 8) + 4.0 * F.one_hot(torch.tensor(7), 8)
    return Labelled(tokens.half(), labels)


def test_attentive_probe_finds_the_one_token_that_tells():
    bank, queries = one_telling_token(300, 0), one_telling_token(90, 1)
    probe = attentive_probe(bank, queries, learning_rates=(3e-3,), num_steps=200, batch_size=64)
    assert probe.accuracy > 0.95
    pooled = [Labelled(part.features.float().mean(1), part.labels) for part in (bank, queries)]
    assert linear_probe(*pooled, num_steps=100).accuracy < 0.7


def test_attentive_probe_is_deterministic_for_a_seed():
    bank, queries = one_telling_token(60, 0), one_telling_token(30, 1)
    settings = {"learning_rates": (1e-3, 3e-3), "num_steps": 10, "batch_size": 16}
    first = attentive_probe(bank, queries, **settings)
    torch.rand(1)  # what else draws from the global state does not matter
    assert attentive_probe(bank, queries, **settings) == first


def test_one_sample_a_class_cannot_choose():
    with pytest.raises(ValueError, match="every class has only one"):
        linear_probe(blobs(3), blobs(30))


def test_draws_of_the_shots_are_the_same_whatever_the_encoder(monkeypatch):
    """Only then are differences between encoders paired by draw."""
    drawn = []
    score = few_shot_module.least_squares_scores
    monkeypatch.setattr(
        few_shot_module,
        "least_squares_scores",
        lambda shots, *rest: drawn.append(shots[:, 0].tolist()) or score(shots, *rest),
    )
    numbers = torch.arange(60.0).unsqueeze(1)
    for dim in (6, 9):
        bank = blobs(60, dim=dim, seed=dim)
        marked = Labelled(torch.cat([numbers, bank.features], dim=1), bank.labels)
        assert len(few_shot_module.few_shot(marked, marked, seed=0).accuracies) == 10
    first, second = drawn[:10], drawn[10:]
    assert first == second
    assert len({tuple(rows) for rows in first}) == 10
    assert all(len(rows) == 15 for rows in first)
