"""Programs that run without this package: ONNX, and torch's own exported programs."""

import json
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_lightning.models import Normalization
from mae_lightning.weights.building import build_timm
from mae_lightning.weights.card import CARD_KEY
from mae_lightning.weights.content import Weights

CARD_FILE = f"{CARD_KEY}.json"
ONNX_BYTES = 2_000_000_000
Outputs = tuple[Tensor, ...]


class Program(nn.Module):
    """What is exported: images in, tokens and feature out, or logits.

    Args:
        weights: Completed ones.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.normalize = Normalization(weights.known.mean, weights.known.std)
        self.model = build_timm(weights)
        self.outputs = output_names(weights)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Outputs:
        """The outputs in their order; images are in 0 to 1."""
        tokens: Tensor = self.model.forward_features(self.normalize(images))
        last: Tensor = self.model.forward_head(tokens)
        return (last,) if self.outputs == ("logits",) else (tokens, last)


def output_names(weights: Weights) -> tuple[str, ...]:
    """What a program gives, in its order."""
    return ("logits",) if weights.head else ("tokens", "feature")


def check_onnx(weights: Weights) -> None:
    """Refuses what ONNX cannot hold in a single file.

    Raises:
        ValueError: The weights are larger, torch does not translate them, or the packages for it are not installed.
    """
    need_onnx()
    if any(name.endswith(".offset_keys") for name in weights.encoder):
        raise ValueError(
            f"torch does not translate the relative positions of {weights.source} to ONNX; use --to export"
        )
    size = sum(value.numel() * value.element_size() for value in (*weights.encoder.values(), *weights.head.values()))
    if size > ONNX_BYTES:
        raise ValueError(f"ONNX files hold at most 2 GB, and the weights are {size / 1e9:.1f} GB; use --to export")


def write_onnx(weights: Weights, path: Path) -> None:
    """Writes an ONNX file: input ``images`` in 0 to 1 of any batch size, outputs as the program's."""
    program = Program(weights).eval()
    written = torch.onnx.export(
        program,
        (example(weights, 2),),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=list(program.outputs),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    assert written is not None
    written.model.metadata_props[CARD_KEY] = json.dumps(weights.known.to_dict())
    written.save(str(path))


def run_onnx(path: Path, images: Tensor) -> Outputs:
    """What onnxruntime makes of the images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return tuple(torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()}))


def write_export(weights: Weights, path: Path) -> None:
    """Writes a ``.pt2`` of torch.export, for any batch size."""
    program = torch.export.export(
        Program(weights).eval(), (example(weights, 2),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={CARD_FILE: json.dumps(weights.known.to_dict())})


def run_export(path: Path, images: Tensor) -> Outputs:
    """What a program that this process just wrote makes of the images; never for files from elsewhere: it unpickles."""
    with path.open("rb") as file:
        run: Callable[[Tensor], Outputs] = torch.export.load(file).module()
    with torch.no_grad():
        return run(images)


def example(weights: Weights, batch: int) -> Float[Tensor, "batch channel height width"]:
    """Random images of the right size in 0 to 1, the same every time."""
    card = weights.known
    return torch.rand(batch, card.num_channels, *card.image_size, generator=torch.Generator().manual_seed(batch))


def card_of_program(path: Path) -> dict[str, Any] | None:
    """What an exported file says of itself, read without running or unpickling anything; None if it says nothing.

    Raises:
        ValueError: It is damaged, or needs a package that is not installed.
    """
    if path.suffix == ".onnx":
        need_onnx()
        import onnx

        try:
            said = {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
        except Exception as error:  # protobuf's own error class comes with its implementation
            raise ValueError(f"{path} is damaged or no ONNX file") from error
        return json.loads(said[CARD_KEY]) if CARD_KEY in said else None
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{CARD_FILE}")]
            return json.loads(archive.read(names[0])) if names else None
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path} is damaged or no exported program: {error}") from error


def need_onnx() -> None:
    """Says what to install.

    Raises:
        ValueError: It is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install 'mae-lightning[export]'")
