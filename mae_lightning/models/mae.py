"""The masked autoencoder (He et al. 2021, arXiv 2111.06377, Figure 1)."""

from typing import Literal

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_lightning.models.decoder import Decoder, TransformerDecoder
from mae_lightning.models.encoder import build_encoder, encode_patches, encode_visible
from mae_lightning.models.initialization import TOKEN_STD, init_as_linear
from mae_lightning.models.masked import MaskedModel
from mae_lightning.models.masking import PatchMask, gather_tokens, place_tokens
from mae_lightning.models.positions import sincos_positions
from mae_lightning.models.sizes import ViTSize
from mae_lightning.models.targets import NormalizedPixels, Target


class MaskedAutoencoder(MaskedModel):
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

    encoder: VisionTransformer
    decoder: Decoder

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
        vit = build_encoder(encoder, image_size=image_size, num_channels=num_channels)
        super().__init__(
            NormalizedPixels() if target is None else target,
            image_size=image_size,
            num_channels=num_channels,
            patch_size=vit.patch_embed.patch_size,
            loss_on=loss_on,
        )
        self.encoder = vit
        self.decoder = TransformerDecoder() if decoder is None else decoder

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

    def features(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch dim"]:
        """Mean patch token after the final norm, all patches seen; images are normalised."""
        kept = torch.arange(self.num_patches, device=images.device).expand(len(images), -1)
        return encode_visible(self.encoder, images, kept)[:, -self.num_patches :].mean(dim=1)

    def _predict(
        self, patches: Float[Tensor, "batch patch pixel"], mask: PatchMask
    ) -> Float[Tensor, "batch predicted output"]:
        encoded = encode_patches(self.encoder, gather_tokens(patches, mask.kept), mask.kept)
        features = self._decode(self.decoder_embed(encoded), mask)
        if self.loss_on == "all":
            order = torch.cat([mask.kept, mask.masked], dim=1)
            features = place_tokens(features[:, -self.num_patches :], order, self.num_patches)
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
