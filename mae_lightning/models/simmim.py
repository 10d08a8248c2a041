"""SimMIM (Xie et al. 2021, arXiv 2111.09886): a Swin sees mask tokens, and a linear head predicts the pixels."""

import torch
from jaxtyping import Bool, Float, Int64
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from mae_lightning.models.initialization import TOKEN_STD
from mae_lightning.models.masked import MaskedModel
from mae_lightning.models.masking import PatchMask, gather_tokens
from mae_lightning.models.sizes import SwinSize
from mae_lightning.models.swin import build_swin, check_stages, check_windows, total_stride
from mae_lightning.models.targets import Pixels


class AbsolutePixels(Pixels):
    """The pixels themselves, under the absolute error (Section 3.4).

    A patch's loss is the mean over its pixels and channels. The paper's sum over masked pixels, divided by their number
    and by the channels, is the mean of this over masked patches.
    """

    def loss(
        self, prediction: Float[Tensor, "batch patch output"], target: Float[Tensor, "batch patch output"]
    ) -> Float[Tensor, "batch patch"]:
        """Mean absolute error of each patch's values."""
        return (prediction - target).abs().mean(dim=-1)


class PixelHead(nn.Module):
    """A linear layer from each token of the last stage to the pixels behind it (Section 3.3).

    Args:
        dim: Channels of a token.
        stride: Side of the image part behind a token, in pixels.
        num_channels: Channels of an image.
    """

    def __init__(self, dim: int, stride: int, num_channels: int) -> None:
        super().__init__()
        self.dim, self.stride, self.num_channels = dim, stride, num_channels
        self.proj = nn.Conv2d(dim, stride**2 * num_channels, kernel_size=1)
        self.shuffle = nn.PixelShuffle(stride)

    def forward(self, features: Float[Tensor, "batch dim row column"]) -> Float[Tensor, "batch channel height width"]:
        """Images, one square of them from each token."""
        images: Tensor = self.shuffle(self.proj(features))
        return images


class SimMIM(MaskedModel):
    """A Swin that sees every token, with a learned one in place of those that are hidden (Figure 1).

    What is hidden as a whole is the square behind one token of the last stage: 32 pixels with patch 4 and four stages,
    the paper's mask patch; 8 with patch 2 and three stages.

    Args:
        encoder: ``SIZE/PATCH`` such as ``swin-base/4``, a timm name ``swin_*``, or explicit sizes.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.

    Raises:
        ValueError: No such encoder, or images that its mask patches, stages or windows do not divide.
    """

    encoder: SwinTransformer

    def __init__(
        self, encoder: str | SwinSize = "swin-base/4", *, image_size: tuple[int, int], num_channels: int = 3
    ) -> None:
        swin = build_swin(encoder, image_size=image_size, num_channels=num_channels)
        stride = total_stride(swin)
        check_stages(image_size, stride)
        check_windows(swin)
        super().__init__(
            AbsolutePixels(), image_size=image_size, num_channels=num_channels, patch_size=(stride, stride)
        )
        self.encoder = swin
        self.tokens_per_side = 2 ** (len(swin.layers) - 1)
        self.mask_token = nn.Parameter(torch.empty(1, 1, 1, swin.embed_dim))
        self.decoder = PixelHead(swin.num_features, stride, num_channels)
        nn.init.trunc_normal_(self.mask_token, std=TOKEN_STD)

    def hidden_tokens(self, mask: PatchMask) -> Bool[Tensor, "batch row column"]:
        """Which of the encoder's first tokens lie in masked patches."""
        coarse = mask.is_masked.view(-1, *self.grid)
        return coarse.repeat_interleave(self.tokens_per_side, 1).repeat_interleave(self.tokens_per_side, 2)

    def features(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch dim"]:
        """Mean token of the last stage after the final norm, nothing hidden; images are normalised."""
        tokens: Tensor = self.encoder.forward_features(images)
        return tokens.mean(dim=(1, 2))

    def no_weight_decay(self) -> set[str]:
        """The mask token, and Swin's relative position biases."""
        return {"mask_token", *(f"encoder.{name}" for name in self.encoder.no_weight_decay())}

    def _predict(
        self,
        patches: Float[Tensor, "batch patch pixel"],
        mask: PatchMask,
        predicted: Int64[Tensor, "batch chosen"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch masked output"]:
        tokens = self.encoder.patch_embed(self.images(patches))
        hidden = self.hidden_tokens(mask).unsqueeze(-1)
        tokens = torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
        features = self.encoder.norm(self.encoder.layers(tokens))
        images = self.decoder(features.movedim(-1, 1))
        return gather_tokens(self.patches(images), mask.masked)
