"""Codes of a discrete tokenizer as the target (paper Table 1d, dVAE token; BEiT)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mae_lightning.models.patches import patch_grid, unpatchify
from mae_lightning.models.targets import Target
from mae_lightning.models.tokenizer import load_tokenizer


class Tokenizer(ABC):
    """From images in 0 to 1 to codes; never trained here, never in a checkpoint, and shared by a model's copies.

    Attributes:
        num_codes: Size of the vocabulary.
        num_channels: Channels of its images.
    """

    num_codes: int
    num_channels: int

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tokenizer":
        return self

    @abstractmethod
    def size_for(self, grid: tuple[int, int]) -> tuple[int, int] | None:
        """Height and width of images that it turns into so many rows and columns; None where it cannot say."""

    @abstractmethod
    def codes(self, images: Float[Tensor, "batch channel height width"]) -> Int64[Tensor, "batch row column"]:
        """One code a square."""


class BuiltInTokenizer(Tokenizer):
    """A :class:`DiscreteVAE` from safetensors.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no such tokenizer.
    """

    def __init__(self, path: str) -> None:
        self.model = load_tokenizer(path)
        self.num_codes, self.num_channels = self.model.num_codes, self.model.num_channels

    def size_for(self, grid: tuple[int, int]) -> tuple[int, int]:
        """A square of the stride for each code."""
        return grid[0] * self.model.stride, grid[1] * self.model.stride

    @torch.no_grad()
    def codes(self, images: Float[Tensor, "batch channel height width"]) -> Int64[Tensor, "batch row column"]:
        """Computed on the images' device."""
        return self.model.to(images.device).codes(images.float())


class OnnxTokenizer(Tokenizer):
    """An ONNX program from ``batch channel height width`` images in 0 to 1 to ``batch code row column`` logits.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: onnxruntime is not installed, or the program is of another form.
    """

    def __init__(self, path: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ValueError(f"the tokenizer {path} needs onnxruntime: pip install 'mae-lightning[export]'") from None
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no tokenizer {path}")
        try:
            self.session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
        except Exception as error:  # onnxruntime's own classes have no common one
            raise ValueError(f"{path} is no ONNX program that can run: {str(error).splitlines()[0]}") from None
        images, logits = self.session.get_inputs(), self.session.get_outputs()
        forms = [images[0].shape, logits[0].shape]
        if len(images) != 1 or [len(form) for form in forms] != [4, 4] or not _are_known(forms[0][1], forms[1][1]):
            raise ValueError(
                f"{path} maps {forms[0]} to {forms[1]}; a tokenizer maps one input of batch x channel x height x width"
                " to logits of batch x code x row x column, with channels and codes fixed"
            )
        self.name, self.fixed = images[0].name, forms[0][2:]
        self.num_channels, self.num_codes = forms[0][1], forms[1][1]

    def size_for(self, grid: tuple[int, int]) -> tuple[int, int] | None:
        """The program's own size, if it has one, whatever the grid."""
        return (self.fixed[0], self.fixed[1]) if _are_known(*self.fixed) else None

    def codes(self, images: Float[Tensor, "batch channel height width"]) -> Int64[Tensor, "batch row column"]:
        """Computed by onnxruntime, by way of the host."""
        (logits,) = self.session.run(None, {self.name: images.float().cpu().numpy()})[:1]
        return torch.from_numpy(logits.argmax(axis=1)).to(images.device)


class Tokens(Target):
    """Which code of a discrete tokenizer stands at a patch; the loss is the cross-entropy.

    The tokenizer sees the same crop at its own size, such that its grid is the patch grid: 112 pixels for a tokenizer
    of stride 8 beside 14 x 14 patches.

    Args:
        tokenizer: A ``.safetensors`` file of :class:`DiscreteVAE`, or an ``.onnx`` program from images in 0 to 1 to
            logits over codes. Neither is unpickled.
        size: Height and width of the images that the tokenizer sees; by default from its stride or its program.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, or onnxruntime is not installed.
    """

    def __init__(self, tokenizer: str, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        kinds: dict[str, type[BuiltInTokenizer | OnnxTokenizer]] = {
            ".safetensors": BuiltInTokenizer,
            ".onnx": OnnxTokenizer,
        }
        if Path(tokenizer).suffix not in kinds:
            raise ValueError(f"tokenizer {tokenizer} must be a .safetensors or .onnx file; others could run code")
        self.tokenizer, self.size = tokenizer, size
        self._reader: Tokenizer = kinds[Path(tokenizer).suffix](tokenizer)
        self.undo: Callable[[Tensor], Tensor] | None = None

    def prepare(self, image_size: tuple[int, int], patch_size: tuple[int, int], num_channels: int) -> None:
        """Checks that the tokenizer's grid is the patch grid.

        Raises:
            ValueError: It is not, the channels differ, or the size is not known.
        """
        self.patch_size, self.num_channels = patch_size, num_channels
        self.grid = patch_grid(image_size, patch_size)
        if num_channels != self._reader.num_channels:
            raise ValueError(
                f"tokenizer {self.tokenizer} is for images of {self._reader.num_channels} channels, not {num_channels}"
            )
        self.size = self.size or self._reader.size_for(self.grid)
        if self.size is None:
            raise ValueError(f"tokenizer {self.tokenizer} takes images of any size; give the target's size")
        found = tuple(self._reader.codes(torch.zeros(1, num_channels, *self.size)).shape[1:])
        if found != self.grid:
            seen, codes, patches = (f"{rows} x {columns}" for rows, columns in (self.size, found, self.grid))
            raise ValueError(
                f"tokenizer {self.tokenizer} gives {codes} codes for {seen} pixels, and there are {patches} patches;"
                " the two must be equal"
            )

    def show_pixels(self, undo: Callable[[Tensor], Tensor]) -> None:
        """Says how normalised images are brought back to 0 to 1; until then they are taken to be so."""
        self.undo = undo

    def num_outputs(self, patch_pixels: int) -> int:
        """The size of the vocabulary, whatever the patch."""
        return self._reader.num_codes

    @torch.no_grad()
    def forward(self, patches: Float[Tensor, "batch patch pixel"]) -> Int64[Tensor, "batch patch"]:
        """The code at each patch."""
        images = unpatchify(patches, self.patch_size, self.grid, self.num_channels)
        images = images if self.undo is None else self.undo(images)
        # Departs from the paper: BEiT crops the image anew at the tokenizer's size; here the crop itself is resized.
        images = F.interpolate(images, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return self._reader.codes(images).flatten(1)

    def loss(
        self, prediction: Float[Tensor, "batch patch output"], target: Int64[Tensor, "batch patch"]
    ) -> Float[Tensor, "batch patch"]:
        """Cross-entropy of each patch in nats."""
        return F.cross_entropy(prediction.transpose(1, 2), target, reduction="none")


def _are_known(*sides: object) -> bool:
    """Whether sides of a program's tensors are numbers, not names."""
    return all(isinstance(side, int) for side in sides)
