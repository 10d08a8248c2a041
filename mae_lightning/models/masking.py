"""Which patches the encoder sees: counts, noise, samplers, and the mask itself."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

# splitmix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195), its constants as signed 64-bit integers.
_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_MANTISSA_BITS = 24


@dataclass(frozen=True)
class PatchMask:
    """The split of every image's patches into those the encoder sees and the others.

    Attributes:
        kept: Indices of the patches that the encoder sees, ascending.
        masked: Indices of all other patches, ascending.
        noise: What the mask was drawn from, for choices that a model makes beyond it; None where there was none.
    """

    kept: Int64[Tensor, "batch kept"]
    masked: Int64[Tensor, "batch masked"]
    noise: Float[Tensor, "batch patch"] | None = None

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.kept.shape[1] + self.masked.shape[1]

    @property
    def order(self) -> Int64[Tensor, "batch patch"]:
        """Indices of all patches, those that the encoder sees first."""
        return torch.cat([self.kept, self.masked], dim=1)

    @property
    def is_masked(self) -> Bool[Tensor, "batch patch"]:
        """True where a patch is hidden from the encoder, patches in their natural order."""
        hidden = torch.ones(len(self.kept), self.num_patches, dtype=torch.bool, device=self.kept.device)
        return hidden.scatter(1, self.kept, False)

    @classmethod
    def from_noise(cls, noise: Float[Tensor, "batch patch"], mask_ratio: float) -> "PatchMask":
        """Keeps the patches with the smallest noise; the masks of one noise nest across ratios.

        Raises:
            ValueError: The ratio leaves no patch to keep, or none to mask.
        """
        num_kept = num_kept_patches(noise.shape[1], mask_ratio)
        order = noise.argsort(dim=1, stable=True)
        return cls(order[:, :num_kept].sort(dim=1).values, order[:, num_kept:].sort(dim=1).values, noise)

    @classmethod
    def from_hidden(
        cls, hidden: Bool[Tensor, "batch patch"], num_kept: int, noise: Float[Tensor, "batch patch"] | None = None
    ) -> "PatchMask":
        """The mask that hides these patches; every image keeps ``num_kept``, which the caller sees to."""
        order = hidden.to(torch.uint8).argsort(dim=1, stable=True)
        return cls(order[:, :num_kept], order[:, num_kept:], noise)


def num_kept_patches(num_patches: int, mask_ratio: float) -> int:
    """Patches of an image that the encoder sees: ``int(num_patches * (1 - mask_ratio))``, as in released weights.

    What is hidden is so rounded up, as in SimMIM: 22 of 36 at 0.6.

    Raises:
        ValueError: The ratio leaves no patch to keep, or none to mask.
    """
    num_kept = int(num_patches * (1 - mask_ratio))
    if not 0 < num_kept < num_patches:
        raise ValueError(
            f"mask_ratio {mask_ratio:g} keeps {num_kept} of {num_patches} patches; "
            f"a ratio above 0 and below 1 that keeps 1 to {num_patches - 1} of them is needed"
        )
    return num_kept


def some_masked(mask: PatchMask, share: float) -> Int64[Tensor, "batch chosen"]:
    """A share of each image's masked patches, at least one, drawn uniformly by the mask's noise; ascending.

    Raises:
        ValueError: The mask does not say what it was drawn from.
    """
    if mask.noise is None:
        raise ValueError("a part of the masked patches is drawn from the mask's noise, and this sampler gives none")
    num_masked = mask.masked.shape[1]
    order = more_noise(mask.noise, num_masked).argsort(dim=1)
    chosen = order[:, : max(1, round(share * num_masked))].sort(dim=1).values
    return mask.masked.gather(1, chosen)


def gather_tokens(
    tokens: Float[Tensor, "#batch token dim"], index: Int64[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen dim"]:
    """The chosen tokens of each image; one row of tokens may serve all images."""
    return tokens.expand(len(index), -1, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def place_tokens(
    values: Float[Tensor, "batch chosen value"], index: Int64[Tensor, "batch chosen"], num_patches: int
) -> Float[Tensor, "batch {num_patches} value"]:
    """Puts values at their places on the grid; zeros elsewhere."""
    grid = values.new_zeros(len(values), num_patches, values.shape[-1])
    return grid.scatter(1, index.unsqueeze(-1).expand_as(values), values)


def sample_noise(
    index: Int64[Tensor, "batch"], num_patches: int, seed: int, epoch: int
) -> Float32[Tensor, "batch {num_patches}"]:
    """Uniform noise in [0, 1) that depends on seed, epoch, sample and patch alone.

    A counter-based integer hash: the same bits on every device, in every batch, process and resumed run.

    Args:
        index: The samples' places in the data set.
        num_patches: Values a sample.
        seed: Seed of the run, a signed 64-bit integer.
        epoch: Number of the epoch; a constant gives every epoch the same noise.
    """
    stream = _hash(_hash(_hash(torch.full_like(index, seed)) ^ epoch) ^ index)
    return _uniform(stream, num_patches)


def more_noise(noise: Float[Tensor, "batch patch"], count: int) -> Float32[Tensor, "batch {count}"]:
    """Further uniform noise in [0, 1) that follows from the given noise alone, for more choices than patches.

    An image's first four values, 96 bits of :func:`sample_noise`, are hashed into the state of another stream.
    """
    stream = torch.zeros(len(noise), dtype=torch.int64, device=noise.device)
    for values in noise[:, :4].unbind(dim=1):
        stream = _hash(stream ^ (values * 2**_MANTISSA_BITS).long())
    return _uniform(stream, count)


def _uniform(stream: Int64[Tensor, "batch"], count: int) -> Float32[Tensor, "batch {count}"]:
    """The stream's first values as multiples of 2^-24."""
    counter = torch.arange(count, device=stream.device)
    bits = _hash(stream.unsqueeze(1) + counter * _WEYL)
    return _shift_right(bits, 64 - _MANTISSA_BITS).float() * 0.5**_MANTISSA_BITS


def _hash(bits: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """One step of splitmix64 from the given state, in wrapping arithmetic."""
    bits = bits + _WEYL
    bits = (bits ^ _shift_right(bits, 30)) * _MULTIPLIERS[0]
    bits = (bits ^ _shift_right(bits, 27)) * _MULTIPLIERS[1]
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Int64[Tensor, "*shape"], count: int) -> Int64[Tensor, "*shape"]:
    """Shifts zeros in from the left, where torch repeats the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


class MaskSampler(ABC):
    """How patches are chosen for masking; derive from it to mask in another way (paper Section 4.1, mask sampling).

    All randomness comes from the noise, so that a mask depends on seed, epoch and sample alone.
    """

    @abstractmethod
    def __call__(self, noise: Float[Tensor, "batch patch"], grid: tuple[int, int], mask_ratio: float) -> PatchMask:
        """Masks for a batch, with the same number of kept patches in every image.

        Args:
            noise: Uniform in [0, 1), one value a patch, patches row by row.
            grid: Rows and columns of patches.
            mask_ratio: Share of the patches to hide.
        """


class RandomMasking(MaskSampler):
    """Uniformly at random without replacement, image by image (paper Section 3, masking).

    The masks of one sample nest: what is hidden at one ratio is hidden at every higher ratio.
    """

    def __call__(self, noise: Float[Tensor, "batch patch"], grid: tuple[int, int], mask_ratio: float) -> PatchMask:
        return PatchMask.from_noise(noise, mask_ratio)
