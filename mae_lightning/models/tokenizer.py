"""A small discrete tokenizer of images, after DALL-E's (Ramesh et al. 2021, arXiv 2102.12092, Section 2.1)."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

ARCHITECTURE = "mae_lightning.DiscreteVAE"
"""Key of the file's metadata that holds the constructor's arguments."""


class DiscreteVAE(nn.Module):
    """An image as a grid of codes and back.

    Strided convolutions give logits over the codes, one vector a square of the image; the code is the greatest. While
    training, a Gumbel-softmax over the codes' vectors is decoded. Images are in 0 to 1.

    Args:
        num_channels: Channels of an image.
        stride: Side of the square behind one code, in pixels; a power of 2.
        num_codes: Size of the vocabulary.
        dim: Channels inside.

    Raises:
        ValueError: The stride is not a power of 2.
    """

    def __init__(self, num_channels: int = 3, stride: int = 8, num_codes: int = 512, dim: int = 64) -> None:
        super().__init__()
        halvings = stride.bit_length() - 1
        if stride < 2 or stride != 2**halvings:
            raise ValueError(f"a tokenizer's stride must be a power of 2 such as 4 or 8, not {stride}")
        self.num_channels, self.stride, self.num_codes, self.dim = num_channels, stride, num_codes, dim
        down: list[nn.Module] = [nn.Conv2d(num_channels, dim, 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(dim, dim, 3, padding=1)]
        for _ in range(halvings):
            down += [nn.GELU(), nn.Conv2d(dim, dim, 4, stride=2, padding=1)]
            up += [nn.GELU(), nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1)]
        self.encoder = nn.Sequential(*down, nn.GELU(), nn.Conv2d(dim, num_codes, 1))
        self.codebook = nn.Parameter(torch.randn(num_codes, dim))
        self.decoder = nn.Sequential(*up, nn.GELU(), nn.Conv2d(dim, num_channels, 1))

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch code row column"]:
        """Logits over the codes."""
        logits: Tensor = self.encoder(images)
        return logits

    def codes(self, images: Float[Tensor, "batch channel height width"]) -> Int64[Tensor, "batch row column"]:
        """The likeliest codes."""
        codes: Tensor = self(images).argmax(dim=1)
        return codes

    def decode(self, weights: Float[Tensor, "batch code row column"]) -> Float[Tensor, "batch channel height width"]:
        """Images from weights over the codes, one-hot or soft."""
        images: Tensor = self.decoder(torch.einsum("nkhw,kd->ndhw", weights, self.codebook))
        return images

    def loss(self, images: Float[Tensor, "batch channel height width"], temperature: float) -> Float[Tensor, "batch"]:
        """Mean squared error of each image from relaxed codes; the lower the temperature, the nearer to one code."""
        weights = F.gumbel_softmax(self(images), tau=temperature, dim=1)
        return (self.decode(weights) - images).square().mean(dim=(1, 2, 3))


def save_tokenizer(tokenizer: DiscreteVAE, path: str | Path) -> None:
    """Writes a tokenizer as safetensors that says how to build it."""
    names = ("num_channels", "stride", "num_codes", "dim")
    arguments = json.dumps({name: getattr(tokenizer, name) for name in names})
    state = {name: value.detach().cpu().contiguous() for name, value in tokenizer.state_dict().items()}
    save_file(state, path, metadata={ARCHITECTURE: arguments})


def load_tokenizer(path: str | Path) -> DiscreteVAE:
    """Reads such a file; nothing in it is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or no tokenizer of this kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no tokenizer {path}")
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(ARCHITECTURE)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors: {error}") from None
    if said is None:
        raise ValueError(f"{path} is no tokenizer of mae_lightning; its metadata would name {ARCHITECTURE}")
    try:
        tokenizer = DiscreteVAE(**json.loads(said))
        tokenizer.load_state_dict(state)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the tokenizer that its metadata describes: {reason}") from None
    return tokenizer.eval().requires_grad_(False)
