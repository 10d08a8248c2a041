"""The plain ways to do what the model does faster with the same loss: each can be put in place of the fast one."""

from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mae_lightning.models import (
    Attention,
    Decoder,
    MaskedAutoencoder,
    MaskedOutput,
    PatchMask,
    fuse_attention,
    gather_tokens,
)
from mae_lightning.models.encoder import encode_tokens
from mae_lightning.planning.benchmark.ways import Plain


def make_plain(model: MaskedAutoencoder, plain: Plain) -> None:
    """Changes a model in place.

    Args:
        model: A masked autoencoder without what departs from the paper.
        plain: ``embed``: all patches by the convolution, of which the visible ones are taken. ``queries``: the last
            decoder block computes the visible tokens too. ``order``: and the decoder's tokens stand in the patches'
            order. ``head``: and all patches are predicted and compared, of which the masked ones count. ``attention``:
            written out everywhere. ``fused``: by torch's kernel everywhere. ``input``: see
            :class:`Way`.
    """
    if plain in ("queries", "order", "head"):
        model.decoder.of_masked = partial(Decoder.of_masked, model.decoder)  # type: ignore[method-assign]
    if plain == "attention":
        for module in model.modules():
            if isinstance(module, Attention):
                module.fused_attn = False  # type: ignore[misc]
    if plain == "fused":
        fuse_attention(model)
    classes = {"embed": _EmbedsAll, "order": _PutsBack, "head": _PredictsAll}
    if plain in classes:
        model.__class__ = classes[plain]


class _EmbedsAll(MaskedAutoencoder):
    """Sees whole images in its patch embedding."""

    def forward(self, images: Float[Tensor, "batch channel height width"], mask: PatchMask) -> MaskedOutput:
        """Keeps the images for the convolution."""
        self._images = images
        return super().forward(images, mask)

    def _encode(
        self, patches: Float[Tensor, "batch patch pixel"], mask: PatchMask, positions: Float[Tensor, "1 position dim"]
    ) -> Float[Tensor, "batch encoded dim"]:
        tokens = gather_tokens(self.encoder.patch_embed(self._images), mask.kept)
        return encode_tokens(self.encoder, tokens, mask.kept, positions)


class _PutsBack(MaskedAutoencoder):
    """Puts mask tokens and visible tokens back in the patches' order."""

    def _decode(
        self,
        encoded: Float[Tensor, "batch encoded dim"],
        mask: PatchMask,
        predicted: Int64[Tensor, "batch predicted"],
        positions: Float[Tensor, "1 position dim"],
    ) -> Float[Tensor, "batch predicted dim"]:
        num_prefix = self.encoder.num_prefix_tokens
        prefix, visible = encoded[:, :num_prefix], encoded[:, num_prefix:]
        hidden = self.mask_token.to(visible.dtype).expand(*mask.masked.shape, -1)
        patches = gather_tokens(torch.cat([visible, hidden], dim=1), mask.order.argsort(dim=1))
        tokens = torch.cat([prefix, patches], dim=1) + positions
        features = self.decoder(tokens[:, :num_prefix], tokens[:, num_prefix:])
        return gather_tokens(features[:, num_prefix:], predicted)


class _PredictsAll(MaskedAutoencoder):
    """Predicts the visible patches too, and compares them, for nothing."""

    def forward(self, images: Float[Tensor, "batch channel height width"], mask: PatchMask) -> MaskedOutput:
        """The same loss and prediction."""
        patches = self.patches(images)
        encoded = self.decoder_embed(self._encode(patches, mask, self._positions(self.encoder.pos_embed, self.grid)))
        features: Tensor = self.decoder(*self._placed(encoded, mask, mask.masked, self.decoder_pos_embed))
        prediction = self.decoder_pred(features[:, self.encoder.num_prefix_tokens :])
        with torch.autocast(images.device.type, enabled=False):
            wide = torch.promote_types(patches.dtype, torch.float32)
            target = gather_tokens(self.target(patches.to(wide)), mask.order)
            loss = self.target.loss(prediction.to(wide), target)
        num_kept = mask.kept.shape[1]
        return MaskedOutput(loss[:, num_kept:], prediction[:, num_kept:])
