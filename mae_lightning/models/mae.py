"""The masked autoencoder (He et al. 2021, arXiv 2111.06377, Figure 1)."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_lightning.models.cross_decoder import FeatureMixture
from mae_lightning.models.decoder import Decoder, TransformerDecoder
from mae_lightning.models.encoder import (
    build_encoder,
    embed_patches,
    encode_every_block,
    encode_tokens,
    encode_visible,
)
from mae_lightning.models.initialization import TOKEN_STD, init_as_linear
from mae_lightning.models.masked import MaskedModel
from mae_lightning.models.masking import PatchMask, gather_tokens, more_noise, place_tokens
from mae_lightning.models.positions import is_sincos, sincos_positions, sincos_table
from mae_lightning.models.sizes import ViTSize
from mae_lightning.models.targets import NormalizedPixels, Target
from mae_lightning.models.tokens import Tokens

TOKEN_SHARE, RANDOM_SHARE = 0.8, 0.1
"""Of the hidden patches, how many become mask tokens and random patches in BERT (Devlin et al. 2018, Section 3.1)."""


class MaskedAutoencoder(MaskedModel):
    """Sees some patches of an image and predicts the others.

    Tokens stay in the order prefix, visible, masked; positions are added before, so nothing is put back in place.

    Example::

        import torch
        from mae_lightning.models import MaskedAutoencoder, NormalizedPixels, RandomMasking, TransformerDecoder

        decoder = TransformerDecoder(depth=2, dim=64, num_heads=4)
        model = MaskedAutoencoder("nano/4", decoder, NormalizedPixels(), image_size=(28, 28), num_channels=1)
        mask = RandomMasking()(torch.rand(8, model.num_patches), model.grid, 0.75)
        loss = model(torch.randn(8, 1, 28, 28), mask).loss_per_patch.mean()

    Args:
        encoder: ``SIZE/PATCH`` such as ``base/16``, a timm name, or explicit sizes; see :func:`build_encoder`.
        decoder: Decoder over visible and mask tokens; by default the paper's 8 blocks of width 512 with 16 heads.
        target: What predictions are compared with; by default pixels normalised by their patch.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.
        loss_on: Whether masked patches alone are predicted, or all, in their natural order (paper Section 3: about half
            a point worse).
        mask_token_in_encoder: Whether the encoder sees mask tokens with positions in place of the hidden patches, and
            the decoder what became of them (Table 1c); ``bert`` for 80 % mask tokens, 10 % random visible patches of
            the same image and 10 % of the hidden patches unchanged.

    Raises:
        ValueError: No such encoder, images that are not a whole number of patches, or a decoder of masked patches alone
            where others are wanted.
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
        mask_token_in_encoder: bool | Literal["bert"] = False,
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
        self.mask_token_in_encoder = mask_token_in_encoder
        if self.decoder.masked_only and (loss_on == "all" or mask_token_in_encoder):
            raise ValueError(
                f"{type(self.decoder).__name__} decodes masked patches alone, from visible ones alone:"
                " it needs loss_on 'masked' and mask_token_in_encoder false"
            )
        if self.decoder.num_mixtures:
            self.mixture = FeatureMixture(len(vit.blocks) + 1, self.decoder.num_mixtures, vit.embed_dim)

        dim = self.decoder.dim
        num_outputs = self.target.num_outputs(self.patch_size[0] * self.patch_size[1] * num_channels)
        self.decoder_embed = nn.Linear(self.encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, vit.embed_dim if mask_token_in_encoder else dim))
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

    def settings(self) -> dict[str, Any]:
        """Where the loss counts, and what the encoder sees at hidden places."""
        return {"loss_on": self.loss_on, "mask_token_in_encoder": self.mask_token_in_encoder}

    def predicted(self, mask: PatchMask) -> Int64[Tensor, "batch predicted"]:
        """As the decoder says."""
        return self.decoder.predicted(mask)

    def objection_to_sizes(self) -> str | None:
        """Positions of other grids are known where they are sines and cosines; a tokenizer has a grid of its own."""
        if isinstance(self.target, Tokens):
            return "its target is a tokenizer with a grid of its own"
        tables: list[Any] = [self.encoder.pos_embed, self.decoder_pos_embed]
        if all(is_sincos(table, self.grid) for table in tables):
            return None
        return "its positions are not the fixed sines and cosines, which other sizes need"

    def _predict(
        self,
        patches: Float[Tensor, "batch patch pixel"],
        mask: PatchMask,
        predicted: Int64[Tensor, "batch chosen"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch predicted output"]:
        encoded = self._encode(patches, mask, self._positions(self.encoder.pos_embed, grid))
        positions = self._positions(self.decoder_pos_embed, grid)
        features = self._decode(self.decoder_embed(encoded), mask, predicted, positions)
        if self.loss_on == "all":
            features = place_tokens(features[:, -mask.num_patches :], mask.order, mask.num_patches)
        prediction: Tensor = self.decoder_pred(features)
        return prediction

    def _positions(
        self, table: Float[Tensor, "1 token dim"] | None, grid: tuple[int, int]
    ) -> Float[Tensor, "1 position dim"]:
        """A table of fixed positions; anew for images of another size than the model was built for."""
        assert table is not None
        if grid == self.grid:
            return table
        return sincos_table(grid, table.shape[2], table.shape[1] - self.num_patches, table.device, table.dtype)

    def _encode(
        self, patches: Float[Tensor, "batch patch pixel"], mask: PatchMask, positions: Float[Tensor, "1 position dim"]
    ) -> Float[Tensor, "batch *mixture encoded dim"]:
        """Features of prefix and visible patches; then those of the hidden places, if the encoder sees them."""
        visible = embed_patches(self.encoder.patch_embed, gather_tokens(patches, mask.kept))
        if self.decoder.num_mixtures:
            mixed: Tensor = self.mixture(encode_every_block(self.encoder, visible, mask.kept, positions))
            return mixed
        if not self.mask_token_in_encoder:
            return encode_tokens(self.encoder, visible, mask.kept, positions)
        hidden = self.mask_token.to(visible.dtype).expand(*mask.masked.shape, -1)
        if self.mask_token_in_encoder == "bert":
            unchanged = embed_patches(self.encoder.patch_embed, gather_tokens(patches, mask.masked))
            hidden = _replaced(hidden, visible, unchanged, mask)
        return encode_tokens(self.encoder, torch.cat([visible, hidden], dim=1), mask.order, positions)

    def _decode(
        self,
        encoded: Float[Tensor, "batch *mixture encoded dim"],
        mask: PatchMask,
        predicted: Int64[Tensor, "batch predicted"],
        positions: Float[Tensor, "1 position decoder_dim"],
    ) -> Float[Tensor, "batch token dim"]:
        visible, masked = self._placed(encoded, mask, predicted, positions)
        if self.loss_on == "masked":
            return self.decoder.of_masked(visible, masked)
        features: Tensor = self.decoder(visible, masked)
        return features

    def _placed(
        self,
        encoded: Float[Tensor, "batch *mixture encoded dim"],
        mask: PatchMask,
        predicted: Int64[Tensor, "batch predicted"],
        positions: Float[Tensor, "1 position decoder_dim"],
    ) -> tuple[Float[Tensor, "batch *mixture visible dim"], Float[Tensor, "batch predicted dim"]]:
        """What the decoder takes: visible and mask tokens with their positions."""
        num_prefix = self.encoder.num_prefix_tokens
        prefix, patches = positions[:, :num_prefix], positions[:, num_prefix:]
        prefix = prefix.expand(len(encoded), -1, -1)
        num_visible = num_prefix + mask.kept.shape[1]
        places = torch.cat([prefix, gather_tokens(patches, mask.kept)], dim=1)
        places = places.unsqueeze(1) if encoded.ndim == 4 else places
        visible = encoded[..., :num_visible, :] + places
        hidden = encoded[:, num_visible:] if self.mask_token_in_encoder else self.mask_token
        return visible, hidden + gather_tokens(patches, predicted)


def _replaced(
    tokens: Float[Tensor, "batch masked dim"],
    visible: Float[Tensor, "batch kept dim"],
    unchanged: Float[Tensor, "batch masked dim"],
    mask: PatchMask,
) -> Float[Tensor, "batch masked dim"]:
    """BERT's replacement, drawn for each patch from the mask's noise.

    Raises:
        ValueError: The mask does not say what it was drawn from.
    """
    if mask.noise is None:
        raise ValueError(
            "mask_token_in_encoder 'bert' draws from the mask's noise, and this sampler gives none to its mask"
        )
    choice, place = more_noise(mask.noise, 2 * tokens.shape[1]).view(len(tokens), 2, -1, 1).unbind(dim=1)
    # Departs from the paper: BERT's random word is any of the vocabulary; this patch shows nothing that is hidden, and
    # no other image of the batch decides it.
    others = gather_tokens(visible, (place.squeeze(-1) * visible.shape[1]).long())
    covered = torch.where(choice < TOKEN_SHARE, tokens, others)
    return torch.where(choice < TOKEN_SHARE + RANDOM_SHARE, covered, unchanged)
