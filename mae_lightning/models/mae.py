"""The masked autoencoder (He et al. 2021, arXiv 2111.06377, Figure 1)."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_lightning.models.decoder import Decoder, TransformerDecoder
from mae_lightning.models.encoder import build_encoder, encode_patches
from mae_lightning.models.initialization import TOKEN_STD, init_as_linear
from mae_lightning.models.masking import PatchMask, gather_tokens
from mae_lightning.models.patches import patchify, unpatchify
from mae_lightning.models.positions import sincos_positions
from mae_lightning.models.sizes import ViTSize
from mae_lightning.models.targets import NormalizedPixels, Target


class MAEOutput(NamedTuple):
    """What a training step needs, for the patches that the loss counts.

    Attributes:
        loss_per_patch: ``batch predicted``, at least float32; the loss is its mean over the images that count.
        prediction: ``batch predicted output``, in the same order.
    """

    loss_per_patch: Tensor
    prediction: Tensor


class MaskedAutoencoder(nn.Module):
    """Sees some patches of an image and predicts the others.

    Tokens stay in the order prefix, visible, masked; positions are added before, so nothing is put back in place.

    Args:
        encoder: ``SIZE/PATCH`` such as ``base/16``, a timm name, or explicit sizes; see :func:`build_encoder`.
        decoder: Decoder over visible and mask tokens; by default the paper's 8 blocks of width 512 with 16 heads.
        target: What predictions are compared with; by default pixels normalised by their patch.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.
        loss_on: Whether masked patches alone are predicted, or all, in their natural order (paper Section 3: about half
            a point worse).

    Raises:
        ValueError: No such encoder, or images that are not a whole number of patches.
    """

    def __init__(
        self,
        encoder: str | ViTSize = "base/16",
        decoder: Decoder | None = None,
        target: Target | None = None,
        *,
        image_size: tuple[int, int],
        num_channels: int = 3,
        loss_on: Literal["masked", "all"] = "masked",
    ) -> None:
        super().__init__()
        self.image_size, self.num_channels, self.loss_on = image_size, num_channels, loss_on
        self.encoder = build_encoder(encoder, image_size=image_size, num_channels=num_channels)
        self.patch_size: tuple[int, int] = self.encoder.patch_embed.patch_size
        self.grid: tuple[int, int] = self.encoder.patch_embed.grid_size
        self.num_patches = self.grid[0] * self.grid[1]
        self.decoder = TransformerDecoder() if decoder is None else decoder
        self.target = NormalizedPixels() if target is None else target

        dim = self.decoder.dim
        num_outputs = self.target.num_outputs(self.patch_size[0] * self.patch_size[1] * num_channels)
        self.decoder_embed = nn.Linear(self.encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        positions = sincos_positions(self.grid, dim, self.encoder.num_prefix_tokens)
        self.decoder_pos_embed = nn.Parameter(positions.unsqueeze(0), requires_grad=False)
        self.decoder_pred = nn.Linear(dim, num_outputs)
        init_as_linear(self.decoder_embed)
        init_as_linear(self.decoder_pred)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, images: Float[Tensor, "batch channel height width"], mask: PatchMask) -> MAEOutput:
        """Loss and prediction for normalised images; the loss is at least float32, also under autocast."""
        patches = self.patches(images)
        prediction = self._predict(patches, mask)
        compared = patches if self.loss_on == "all" else gather_tokens(patches, mask.masked)
        with torch.autocast(images.device.type, enabled=False):
            target = self.target(_at_least_float32(compared))
            loss_per_patch = self.target.loss(_at_least_float32(prediction), target)
        return MAEOutput(loss_per_patch, prediction)

    def predict(
        self, images: Float[Tensor, "batch channel height width"], mask: PatchMask
    ) -> Float[Tensor, "batch patch output"]:
        """Prediction for every place of the grid, for pictures; zero at places that the model does not predict."""
        prediction = self(images, mask).prediction  # through forward, where compilation and sharding take hold
        return prediction if self.loss_on == "all" else _place(prediction, mask.masked, self.num_patches)

    def patches(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch patch pixel"]:
        """Images as flat patches of this model's size."""
        return patchify(images, self.patch_size)

    def images(self, patches: Float[Tensor, "batch patch pixel"]) -> Float[Tensor, "batch channel height width"]:
        """Flat patches as images again."""
        return unpatchify(patches, self.patch_size, self.grid, self.num_channels)

    def _predict(
        self, patches: Float[Tensor, "batch patch pixel"], mask: PatchMask
    ) -> Float[Tensor, "batch predicted output"]:
        encoded = encode_patches(self.encoder, gather_tokens(patches, mask.kept), mask.kept)
        features = self._decode(self.decoder_embed(encoded), mask)
        if self.loss_on == "all":
            order = torch.cat([mask.kept, mask.masked], dim=1)
            features = _place(features[:, -self.num_patches :], order, self.num_patches)
        else:
            features = features[:, -mask.masked.shape[1] :]
        prediction: Tensor = self.decoder_pred(features)
        return prediction

    def _decode(self, visible: Float[Tensor, "batch visible dim"], mask: PatchMask) -> Float[Tensor, "batch token dim"]:
        num_prefix = self.encoder.num_prefix_tokens
        prefix, patches = self.decoder_pos_embed[:, :num_prefix], self.decoder_pos_embed[:, num_prefix:]
        prefix = prefix.expand(len(visible), -1, -1)
        visible = visible + torch.cat([prefix, gather_tokens(patches, mask.kept)], dim=1)
        features: Tensor = self.decoder(visible, self.mask_token + gather_tokens(patches, mask.masked))
        return features


def _place(
    values: Float[Tensor, "batch chosen value"], index: Tensor, num_patches: int
) -> Float[Tensor, "batch patch value"]:
    """Puts values at their places on the grid; zeros elsewhere."""
    grid = values.new_zeros(len(values), num_patches, values.shape[-1])
    return grid.scatter(1, index.unsqueeze(-1).expand_as(values), values)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
