"""The protocols on frozen features, and what each of them says of one encoder."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from mae_lightning.data.subsets import hold_out, labelled_part
from mae_lightning.evaluation.attentive import attentive_probe
from mae_lightning.evaluation.features import FeatureSet, Labelled
from mae_lightning.evaluation.few_shot import RIDGE, few_shot
from mae_lightning.evaluation.knn import knn_predict
from mae_lightning.evaluation.linear import HOLD_OUT, Probe, linear_probe

SHOTS, DRAWS = 5, 10
READING_KNN = (
    "k-NN compares features as they lie. Masked autoencoders do not arrange them by class: on ImageNet-1k k-NN is low"
    " (11 % for a ViT-B after 100 epochs) where fine-tuning is excellent, on simpler data it is not (72 % on"
    " Imagenette). Compare it between runs of one kind; judge transfer by the probes, and best by fine-tuning."
)


@dataclass(frozen=True)
class Score:
    """One row of the table.

    Attributes:
        encoder: Which encoder.
        protocol: Which protocol.
        labels: Which share of the training labels, or how many a class.
        num_labels: How many labels that is.
        accuracy: Top-1 on the held-out images.
        deviation: Over repeated draws, where there are any.
        selected_on: What chose the settings: never the held-out images.
        seconds: Time on features that were there already.
        details: What else is known: accuracies on the hold-out by learning rate, or of every draw.
    """

    encoder: str
    protocol: str
    labels: str
    num_labels: int
    accuracy: float
    deviation: float | None
    selected_on: str
    seconds: float
    details: dict[str, float]


@dataclass(frozen=True)
class Impossible:
    """A row that these data do not allow.

    Attributes:
        protocol: Which protocol.
        labels: Which share of the training labels, or how many a class.
        reason: Why.
    """

    protocol: str
    labels: str
    reason: str


def run_protocols(
    encoder: str,
    train: FeatureSet,
    held_out: FeatureSet,
    protocols: Sequence[str],
    fractions: Sequence[float],
    seed: int,
) -> Iterator[Score | Impossible]:
    """Scores, as they come, or why there is none; smaller label fractions lie inside larger ones.

    Args:
        encoder: Its name.
        train: Features of the training images.
        held_out: Features of the images that are judged on.
        protocols: ``few_shot``, and some of :data:`BY_FRACTION`.
        fractions: Shares of the training labels, each class alike.
        seed: Of the shares, the draws and the hold-out.
    """
    labels = train.pooled.labels.cpu().numpy()
    for protocol in protocols:
        if protocol == "few_shot":
            shots = partial(_few_shot, encoder, train.pooled, held_out.pooled, seed)
            reason = _obstacle(protocol, labels, seed)
            yield _timed(shots) if reason is None else Impossible(protocol, f"{SHOTS} a class", reason)
            continue
        for fraction in fractions:
            part = labelled_part(labels, float(fraction), seed)
            reason = _obstacle(protocol, labels[part], seed)
            if reason is not None:
                yield Impossible(protocol, _percent(fraction), f"{reason} (--fractions)")
                continue
            rows = torch.from_numpy(part).to(train.pooled.labels.device)
            yield _timed(partial(BY_FRACTION[protocol], encoder, train, held_out, rows, fraction, seed))


def _obstacle(protocol: str, labels: NDArray[np.int64], seed: int) -> str | None:
    """Why these labels are too few for a protocol; None if they are enough."""
    try:
        if protocol == "few_shot":
            labelled_part(labels, SHOTS, seed)
        elif protocol != "knn":
            hold_out(labels, HOLD_OUT, seed)
    except ValueError as error:
        return str(error)
    return None


def _timed(score: Callable[[], Score]) -> Score:
    start = time.perf_counter()
    result = score()
    return replace(result, seconds=time.perf_counter() - start)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g}%"


def _few_shot(encoder: str, train: Labelled, held_out: Labelled, seed: int) -> Score:
    result = few_shot(train, held_out, shots=SHOTS, num_draws=DRAWS, seed=seed)
    details = {f"draw {number}": accuracy for number, accuracy in enumerate(result.accuracies)}
    chosen = f"nothing (ridge {RIDGE:g}, {DRAWS} draws)"
    num_labels = SHOTS * train.num_classes
    return Score(
        encoder, "few_shot", f"{SHOTS} a class", num_labels, result.mean, result.deviation, chosen, 0.0, details
    )


def _knn(
    encoder: str, train: FeatureSet, held_out: FeatureSet, rows: torch.Tensor, fraction: float, seed: int
) -> Score:
    bank, queries = train.pooled[rows], held_out.pooled
    predicted = knn_predict(bank.features, bank.labels, queries.features, num_classes=bank.num_classes)
    accuracy = float((predicted == queries.labels).double().mean())
    chosen = "nothing (k 20, temperature 0.07)"
    return Score(encoder, "knn", _percent(fraction), len(bank), accuracy, None, chosen, 0.0, {})


def _linear(
    encoder: str, train: FeatureSet, held_out: FeatureSet, rows: torch.Tensor, fraction: float, seed: int
) -> Score:
    probe = linear_probe(train.pooled[rows], held_out.pooled, seed=seed)
    return _probe_score(encoder, "linear (cached)", probe, len(rows), fraction)


def _attentive(
    encoder: str, train: FeatureSet, held_out: FeatureSet, rows: torch.Tensor, fraction: float, seed: int
) -> Score:
    assert train.tokens is not None
    assert held_out.tokens is not None
    probe = attentive_probe(train.tokens[rows], held_out.tokens, seed=seed)
    return _probe_score(encoder, "attentive (cached)", probe, len(rows), fraction)


def _probe_score(encoder: str, protocol: str, probe: Probe, num_labels: int, fraction: float) -> Score:
    chosen = f"lr {probe.chosen_lr:g} on a hold-out, {HOLD_OUT:.0%} of these labels"
    details = {f"hold-out accuracy at lr {lr:g}": accuracy for lr, accuracy in probe.hold_out_accuracy.items()}
    return Score(encoder, protocol, _percent(fraction), num_labels, probe.accuracy, None, chosen, 0.0, details)


BY_FRACTION: dict[str, Callable[..., Score]] = {"knn": _knn, "linear": _linear, "attentive": _attentive}
