"""The table of what goes where, and conversions that prove themselves before their file is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mae_lightning.models import MaskedModel, PatchMask
from mae_lightning.weights.building import build_masked, build_timm
from mae_lightning.weights.card import CARD_KEY
from mae_lightning.weights.content import Weights, completed
from mae_lightning.weights.exported import (
    Program,
    check_onnx,
    example,
    output_names,
    run_export,
    run_onnx,
    write_export,
    write_onnx,
)
from mae_lightning.weights.files import write_safetensors, written_whole
from mae_lightning.weights.huggingface import architecture_of, check_folder, write_folder
from mae_lightning.weights.official import official_state
from mae_lightning.weights.opening import open_weights
from mae_lightning.weights.timm_models import plain_head, timm_call, timm_model

TOLERANCE = 1e-5
"""Greatest difference, over the greatest value, between outputs before and after."""
Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Format:
    """A row of the table.

    Attributes:
        title: For messages.
        suffix: How a file's name ends; empty for a folder.
        keeps_decoder: Whether a masked model's decoder goes along; otherwise the encoder goes alone.
        check: Raises ValueError where the weights do not go there.
        write: Writes the temporary file or folder.
        read_back: Outputs of what was written for the images of the check.
        usage: How it is used.
        outputs: What those that are read back should be.
    """

    title: str
    suffix: str
    keeps_decoder: bool
    check: Callable[[Weights], object]
    write: Callable[[Weights, Path], None]
    read_back: Callable[[Weights, Path], Outputs]
    usage: Callable[[Weights, Path], str]
    outputs: Callable[[Weights], Outputs]


def convert(weights: Weights, to: str, out: Path) -> list[str]:
    """Writes weights in another format; the file appears only when it gives the same outputs.

    Args:
        weights: Completed ones.
        to: A row of :data:`FORMATS`.
        out: The file or folder, which must not be there.

    Returns:
        Lines on what was left out, on the check and on use.

    Raises:
        ValueError: The format has no place for the weights, the name ends wrongly, or the check failed.
    """
    form = FORMATS[to]
    if form.suffix and out.suffix != form.suffix:
        raise ValueError(f"--out {out}: a file of {form.title} ends in {form.suffix}")
    lines = []
    if weights.has_decoder and not form.keeps_decoder:
        weights = weights.without_decoder
        lines.append(f"{form.title} holds encoders and classifiers: the decoder is left out")
    given, weights = weights, weights if to == "safetensors" else plain_head(weights)
    form.check(weights)
    with written_whole(out) as temporary:
        form.write(weights, temporary)
        before = form.outputs(given)
        difference = largest_difference(before, form.read_back(weights, temporary))
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{weights.source} gives other outputs as {form.title}: they differ by {difference:.1e} of the greatest"
                f" value, and {TOLERANCE:.0e} is allowed; nothing was written"
            )
    lines.append(
        f"checked: {', '.join(before)} differ by {difference:.1e} of the greatest value, allowed {TOLERANCE:.0e}"
    )
    return [*lines, f"use: {form.usage(weights, out)}"]


def obstacle(weights: Weights, to: str) -> str | None:
    """Why weights do not go into a format; None if they do."""
    form = FORMATS[to]
    try:
        form.check(plain_head(weights if form.keeps_decoder else weights.without_decoder))
    except ValueError as error:
        return str(error)
    return None


@torch.no_grad()
def outputs(weights: Weights) -> Outputs:
    """Features, and logits or reconstruction, for the images of the check."""
    if weights.has_decoder:
        return {**outputs(weights.without_decoder), "reconstruction": _reconstruction(build_masked(weights), weights)}
    return _timm_outputs(build_timm(weights), weights)


@torch.no_grad()
def program_outputs(weights: Weights) -> Outputs:
    """What an exported program should give, for one image more than it was exported with."""
    program = Program(weights).eval()
    return dict(zip(program.outputs, program(example(weights, 3)), strict=True))


@torch.no_grad()
def largest_difference(before: Outputs, after: Outputs) -> float:
    """Over all outputs, the greatest difference over the greatest value; infinite where they do not compare."""
    if {name: value.shape for name, value in before.items()} != {name: value.shape for name, value in after.items()}:
        return float("inf")
    differences = [
        (after[name] - value).abs().max() / value.abs().max().clamp(min=1e-12) for name, value in before.items()
    ]
    return float(torch.stack(differences).max())  # not a number where one of them is none


def _timm_outputs(model: torch.nn.Module, weights: Weights) -> Outputs:
    with torch.no_grad():
        tokens = model.forward_features(example(weights, 2))  # type: ignore[operator]
        last = model.forward_head(tokens)  # type: ignore[operator]
    return {"tokens": tokens, "logits" if weights.head else "feature": last}


def _reconstruction(model: MaskedModel, weights: Weights) -> Tensor:
    noise = torch.rand(2, model.num_patches, generator=torch.Generator().manual_seed(0))
    return model.predict(example(weights, 2), PatchMask.from_noise(noise, 0.5))


def _read_back(weights: Weights, path: Path) -> Outputs:
    """Outputs of the file as anyone would open it."""
    return outputs(completed(open_weights(path)))


def _write_official(weights: Weights, path: Path) -> None:
    torch.save({"model": official_state(weights), CARD_KEY: weights.known.to_dict()}, path)


def _write_ours(weights: Weights, path: Path) -> None:
    state = {f"encoder.{name}": value for name, value in weights.encoder.items()}
    write_safetensors({**state, **weights.decoder, **weights.head}, weights.known, path)


def _write_timm(weights: Weights, path: Path) -> None:
    write_safetensors({**weights.encoder, **weights.head}, weights.known, path)


def _read_back_timm(weights: Weights, path: Path) -> Outputs:
    return _timm_outputs(timm_model(weights, path), weights)


def _use_timm(weights: Weights, out: Path) -> str:
    name, options = timm_call(weights)
    arguments = "".join(f", {key}={value!r}" for key, value in options.items())
    return f"timm.create_model('{name}', checkpoint_path='{out}'{arguments})"


def _use_folder(weights: Weights, out: Path) -> str:
    kind = architecture_of(weights)
    more = ", add_pooling_layer=False" if kind == "ViTModel" else ""
    return f"transformers.{kind}.from_pretrained('{out}'{more})"


def _use_program(weights: Weights, out: Path) -> str:
    card = weights.known
    height, width = card.image_size
    made = ", ".join(output_names(weights))
    return f"images (batch, {card.num_channels}, {height}, {width}) in 0 to 1, normalised inside; out: {made}"


def _use_ours(weights: Weights, out: Path) -> str:
    return f"mae_lightning.load_encoder('{out}'), init_from, convert"


def _use_official(weights: Weights, out: Path) -> str:
    return f"torch.load('{out}', weights_only=True)['model']"


def _ran(run: Callable[[Path, Tensor], tuple[Tensor, ...]]) -> Callable[[Weights, Path], Outputs]:
    def read_back(weights: Weights, path: Path) -> Outputs:
        return dict(zip(output_names(weights), run(path, example(weights, 3)), strict=True))

    return read_back


def _anything(weights: Weights) -> None:
    """Every model goes there."""


FORMATS = {
    "official": Format(
        "the official layout", ".pth", True, official_state, _write_official, _read_back, _use_official, outputs
    ),
    "timm": Format("timm", ".safetensors", False, timm_call, _write_timm, _read_back_timm, _use_timm, outputs),
    "hf": Format("Hugging Face", "", True, check_folder, write_folder, _read_back, _use_folder, outputs),
    "safetensors": Format("safetensors", ".safetensors", True, _anything, _write_ours, _read_back, _use_ours, outputs),
    "onnx": Format("ONNX", ".onnx", False, check_onnx, write_onnx, _ran(run_onnx), _use_program, program_outputs),
    "export": Format(
        "torch.export", ".pt2", False, _anything, write_export, _ran(run_export), _use_program, program_outputs
    ),
}
"""What goes where."""
