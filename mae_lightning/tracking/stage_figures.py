"""What a stage of a trial came to, under fixed names."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mae_lightning.tracking.provenance import config_hash
from mae_lightning.tracking.runs import LAST_CHECKPOINT, RunRecord, read_run
from mae_lightning.weights import FLOPS_KEY, read_checkpoint

FINAL = {"accuracy": "val/accuracy", "loss": "val/loss", "psnr": "val/psnr"}
"""Figures of the last epoch: nothing is selected."""
PACE = "train/images_per_second"
DIGITS = 12


def read_stage(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A finished stage's figures, and the hashes of its config and of its data's manifest where they are known.

    Args:
        name: Of the stage, the beginning of its figures' names.
        folder: Where it wrote.
    """
    if name == "evaluate":
        return _evaluation(json.loads((folder / "results.json").read_text())), {}
    record = read_run(folder)
    provenance = {"config": config_hash(record.config)}
    checkpoint = read_checkpoint(folder / LAST_CHECKPOINT)
    digest = _manifest_digest(checkpoint)
    cost = {f"{name}_{FLOPS_KEY}": checkpoint[FLOPS_KEY]} if FLOPS_KEY in checkpoint else {}
    return _training(name, record) | cost, provenance | ({"manifest": digest[:DIGITS]} if digest else {})


def _training(name: str, record: RunRecord) -> dict[str, Any]:
    known = {column for row in record.rows for column in row}
    figures = {f"{name}_{short}": record.last(column) for short, column in FINAL.items() if column in known}
    paces = [row[PACE] for row in record.rows if PACE in row]
    return figures | ({f"{name}_images_per_second": median(paces)} if paces else {})


def _manifest_digest(checkpoint: Mapping[str, Any]) -> str | None:
    for value in checkpoint.values():
        if isinstance(value, Mapping) and isinstance(value.get("data"), str) and "position" in value:
            return str(value["data"])
    return None


def _evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy of each protocol with most labels, and of every draw where there are several."""
    best: dict[str, Mapping[str, Any]] = {}
    for score in results["scores"]:
        protocol = score["protocol"].split()[0]
        if protocol not in best or score["num_labels"] > best[protocol]["num_labels"]:
            best[protocol] = score
    figures: dict[str, Any] = {f"{name}_accuracy": score["accuracy"] for name, score in best.items()}
    draws = {f"trial/{name}_accuracy": _draws(score["details"]) for name, score in best.items()}
    return figures | {"draws": {name: values for name, values in draws.items() if values}}


def _draws(details: Mapping[str, float]) -> Sequence[float]:
    return [details[f"draw {number}"] for number in range(len(details)) if f"draw {number}" in details]
