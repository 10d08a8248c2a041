"""Other implementations of the masked autoencoder, with random weights and the sizes of one of ours."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_lightning.models import MaskedAutoencoder, NormalizedPixels, Pixels, TransformerDecoder
from mae_lightning.planning.benchmark.ways import Way
from mae_lightning.tasks import MaskedPretraining

PACKAGES = {"huggingface": "transformers", "lightly": "lightly"}


def has_peer(peer: str) -> bool:
    """Whether its package is installed."""
    try:
        version(PACKAGES[peer])
    except PackageNotFoundError:
        return False
    return True


def check_peer(peer: str, task: MaskedPretraining) -> None:
    """Refuses what cannot be compared.

    Raises:
        ValueError: Its package is missing, or it has no such model.
    """
    if not has_peer(peer):
        raise ValueError(f"--compare needs {PACKAGES[peer]}, which is not installed: pip install {PACKAGES[peer]}")
    _sizes(task)


def peer_of(way: Way, task: MaskedPretraining) -> nn.Module:
    """Another's model with the sizes of ours; with random weights, and without reading or fetching anything."""
    return Lightly(task) if way.model == "lightly" else HuggingFace(task, explicit=way.explicit)


class HuggingFace(nn.Module):
    """Hugging Face's ``ViTMAEForPreTraining``, a port of the official code.

    Args:
        task: Whose sizes it has.
        explicit: Whether attention is written out, as in the official code.

    Attributes:
        ends: Modules at the end of each part of the forward pass.
    """

    def __init__(self, task: MaskedPretraining, *, explicit: bool) -> None:
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        super().__init__()
        encoder, decoder = _sizes(task)
        model = _model(task)
        config = ViTMAEConfig(
            image_size=model.image_size[0],
            patch_size=model.patch_size[0],
            num_channels=model.num_channels,
            hidden_size=encoder.embed_dim,
            num_hidden_layers=len(encoder.blocks),
            num_attention_heads=_attention(encoder).num_heads,
            intermediate_size=_hidden(encoder.blocks[0]),
            decoder_hidden_size=decoder.dim,
            decoder_num_hidden_layers=decoder.depth,
            decoder_num_attention_heads=decoder.num_heads,
            decoder_intermediate_size=_hidden(decoder.blocks[0]),
            mask_ratio=task.mask_ratio,
            norm_pix_loss=isinstance(model.target, NormalizedPixels),
            layer_norm_eps=1e-6,
        )
        config._attn_implementation = "eager" if explicit else "sdpa"
        self.model: Any = ViTMAEForPreTraining(config)
        vit, last = self.model.vit, self.model.decoder.decoder_pred
        self.ends: dict[str, nn.Module] = {"embed": vit.embeddings, "encoder": vit.layernorm, "decoder": last}

    def forward(self, images: Tensor) -> Tensor:
        """The loss."""
        loss: Tensor = self.model(images).loss
        return loss


class Lightly(nn.Module):
    """The masked autoencoder that the parts of lightly 1.6 make up, with an embedding and a head around its decoder.

    Args:
        task: Whose sizes it has.

    Attributes:
        ends: Modules at the end of each part of the forward pass.
    """

    def __init__(self, task: MaskedPretraining) -> None:
        from lightly.models import utils
        from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM

        super().__init__()
        encoder, decoder = _sizes(task)
        model = _model(task)
        self.utils: Any = utils
        self.mask_ratio, self.patch_size = task.mask_ratio, model.patch_size[0]
        self.is_normalised = isinstance(model.target, NormalizedPixels)
        vit = VisionTransformer(
            img_size=model.image_size[0],
            patch_size=self.patch_size,
            in_chans=model.num_channels,
            embed_dim=encoder.embed_dim,
            depth=len(encoder.blocks),
            num_heads=_attention(encoder).num_heads,
            mlp_ratio=_hidden(encoder.blocks[0]) / encoder.embed_dim,
            num_classes=0,
        )
        self.encoder: Any = MaskedVisionTransformerTIMM(vit=vit)
        self.embed = nn.Linear(encoder.embed_dim, decoder.dim)
        self.decoder: Any = MaskedVisionTransformerDecoderTIMM(
            num_patches=model.num_patches,
            embed_dim=decoder.dim,
            depth=decoder.depth,
            num_heads=decoder.num_heads,
            mlp_ratio=decoder.mlp_ratio,
        )
        self.head = nn.Linear(decoder.dim, self.patch_size**2 * model.num_channels)
        self.ends: dict[str, nn.Module] = {"embed": vit.norm_pre, "encoder": vit.norm, "decoder": self.head}

    def forward(self, images: Tensor) -> Tensor:
        """The loss."""
        size = (len(images), self.encoder.sequence_length)
        kept, masked = self.utils.random_token_mask(size, mask_ratio=self.mask_ratio, device=images.device)
        visible = self.embed(self.encoder.encode(images=images, idx_keep=kept))
        hidden = self.utils.repeat_token(self.decoder.mask_token, size).type_as(visible)
        tokens = self.decoder(self.utils.set_at_index(hidden, kept, visible))
        prediction = self.head(self.utils.get_at_index(tokens, masked))
        target = self.utils.get_at_index(self.utils.patchify(images, self.patch_size), masked - 1)
        if self.is_normalised:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        return F.mse_loss(prediction.float(), target)


def _model(task: MaskedPretraining) -> MaskedAutoencoder:
    assert isinstance(task.model, MaskedAutoencoder)
    return task.model


def _sizes(task: MaskedPretraining) -> tuple[VisionTransformer, TransformerDecoder]:
    """Encoder and decoder of a model that others have too.

    Raises:
        ValueError: It is none.
    """
    model = task.model
    if (
        not isinstance(model, MaskedAutoencoder)
        or type(model.decoder) is not TransformerDecoder
        or type(model.target) not in (Pixels, NormalizedPixels)
        or model.loss_on != "masked"
        or model.mask_token_in_encoder
        or model.encoder.num_prefix_tokens != 1
        or model.image_size[0] != model.image_size[1]
        or model.patch_size[0] != model.patch_size[1]
    ):
        raise ValueError(
            "--compare: others have the paper's masked autoencoder of square images with a class token alone,"
            " and this model is another"
        )
    return model.encoder, model.decoder


def _attention(encoder: VisionTransformer) -> Any:
    return encoder.blocks[0].attn


def _hidden(block: Any) -> int:
    return int(block.mlp.fc1.out_features)
