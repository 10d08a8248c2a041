"""``inspect``: what a checkpoint is, what can be done with it, and what not and why."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_lightning.commands.convert import TARGETS
from mae_lightning.commands.facts import add_facts, facts

if TYPE_CHECKING:
    from mae_lightning.weights.card import CheckpointCard
    from mae_lightning.weights.content import Weights

FORMATS = {
    "mae_lightning": "checkpoint of this package",
    "official": "official MAE layout",
    "timm": "timm",
    "hf": "Hugging Face folder",
    "safetensors": "safetensors of this package",
    ".onnx": "ONNX program",
    ".pt2": "torch.export program",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file, a folder or a timm name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_facts(parser)


def run(args: argparse.Namespace) -> int:
    """Prints facts, and uses with what stands against each."""
    about, uses = examine(args.checkpoint, facts(args))
    if args.json:
        print(json.dumps({"about": about, "uses": uses}, indent=2))
        return 0
    width = max(map(len, about))
    print("\n".join(f"{name:<{width}}  {_text(value)}" for name, value in about.items() if value not in (None, {}, [])))
    possible = [name for name, reason in uses.items() if reason is None]
    print(f"\ncan be used to: {', '.join(possible) or 'nothing here'}")
    for name, reason in uses.items():
        if reason is not None:
            print(f"cannot {name}: {reason}")
    return 0


def examine(name: str, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Facts of a checkpoint, and what stands against each use of it: None where nothing does.

    Args:
        name: A file, a folder or a timm name.
        given: What the user says of a foreign file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no checkpoint, or lacks some of the tensors that its model needs.
    """
    from mae_lightning.weights.building import build_timm
    from mae_lightning.weights.content import Said, completed
    from mae_lightning.weights.opening import PROGRAMS, open_weights

    if Path(name).suffix in PROGRAMS and Path(name).is_file():
        return _program(Path(name))
    said = Said(**given)
    weights = open_weights(name, said)
    about: dict[str, Any] = {
        "checkpoint": name,
        "format": FORMATS[weights.format],
        "parameters": {part: _count(getattr(weights, part)) for part in ("encoder", "decoder", "head")},
        "trained": dict(weights.trained),
    }
    try:
        weights = completed(weights, said)
    except ValueError as error:
        needed = str(error)
        uses = dict.fromkeys(["fine-tune", "evaluate", "reconstruct", "predict classes"], needed)
        return about | {"unknown": needed}, {**uses, **{f"convert to {target}": needed for target in TARGETS}}
    build_timm(weights)
    about |= {"holds": _holds(weights), **_facts(weights.known), "assumed": list(weights.assumed)}
    return about, _uses(weights)


def _uses(weights: "Weights") -> dict[str, str | None]:
    from mae_lightning.weights.converting import obstacle

    no_classes = None if weights.head else "it has no classes; fine-tune it first, and give that run's checkpoint"
    reason = _no_masked_model(weights)
    uses = {"fine-tune": None, "evaluate": None, "reconstruct": reason, "predict classes": no_classes}
    return {**uses, **{f"convert to {target}": obstacle(weights, target) for target in TARGETS}}


def _no_masked_model(weights: "Weights") -> str | None:
    """Why no model that reconstructs can be built; None if one can.

    Raises:
        ValueError: One could be, and the weights are not its weights.
    """
    from mae_lightning.weights.building import build_masked

    try:
        build_masked(weights)
    except ValueError as error:
        if "does not fit the model" in str(error):
            raise
        return str(error)
    return None


def _program(path: Path) -> tuple[dict[str, Any], dict[str, str | None]]:
    from mae_lightning.weights.card import CARD_KEY, CheckpointCard
    from mae_lightning.weights.exported import card_of_program

    said = card_of_program(path)
    about = {"checkpoint": str(path), "format": FORMATS[path.suffix]}
    if said is not None:
        about |= _facts(CheckpointCard.from_checkpoint({CARD_KEY: said}, str(path)))
    reason = "a program runs but is not loaded; give the checkpoint it was made from"
    uses: dict[str, str | None] = {"run without this package": None}
    return about, {**uses, **dict.fromkeys(["fine-tune", "evaluate", "reconstruct", "convert"], reason)}


def _holds(weights: "Weights") -> str:
    card = weights.known
    if weights.head:
        return (
            f"classifier of {(card.classifier or {})['num_classes']} classes, {(card.classifier or {})['pool']} pooling"
        )
    if weights.decoder:
        return {"mae": "masked autoencoder", "simmim": "SimMIM"}[card.objective] + ", encoder and decoder"
    return "encoder"


def _facts(card: "CheckpointCard") -> dict[str, Any]:
    decoder, target = card.decoder or {}, card.target or {}
    return {
        "objective": card.objective,
        "encoder": card.encoder,
        "decoder": decoder.get("init_args"),
        "target": str(target["class_path"]).rsplit(".", 1)[1] if target else None,
        "image size": list(card.image_size),
        "channels": card.num_channels,
        "mean": list(card.mean),
        "std": list(card.std),
        "classes": list(card.class_names) if card.class_names else None,
        "started from": card.started_from,
        "written by": f"mae_lightning {card.package_version}",
    }


def _count(state: Any) -> int:
    return sum(value.numel() for value in state.values())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(entry)}" for name, entry in value.items() if entry != 0)
    if isinstance(value, list | tuple):
        shown = ", ".join(_text(entry) for entry in value[:10])
        return shown + (f" and {len(value) - 10} more" if len(value) > 10 else "")
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )
