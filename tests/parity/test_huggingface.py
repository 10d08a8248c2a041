"""The same random weights, images and noise as Hugging Face's ViTMAE give the same loss, prediction and gradients."""

import pytest
import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from mae_lightning.models import (
    MaskedAutoencoder,
    NormalizedPixels,
    PatchMask,
    Pixels,
    TransformerDecoder,
    ViTSize,
    sincos_positions,
)

MASK_RATIO = 0.75
SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
TARGETS = {"pixels": Pixels, "normalised pixels": NormalizedPixels}


def build_theirs(norm_pix_loss: bool, dtype: torch.dtype) -> ViTMAEForPreTraining:
    config = ViTMAEConfig(**SMALL, layer_norm_eps=1e-6, mask_ratio=MASK_RATIO, norm_pix_loss=norm_pix_loss)
    # Their eager attention takes the softmax in float32, whatever the model's type; SDPA does not.
    config._attn_implementation = "sdpa"
    model = ViTMAEForPreTraining(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.15)
    return model


def build_ours(norm_pix_loss: bool, loss_on: str = "masked") -> MaskedAutoencoder:
    return MaskedAutoencoder(
        ViTSize(32, 2, 4, 8, mlp_ratio=2.0),
        TransformerDecoder(depth=2, dim=16, num_heads=2, mlp_ratio=2.0),
        NormalizedPixels() if norm_pix_loss else Pixels(),
        image_size=(32, 32),
        loss_on=loss_on,
    )


LAYERS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def named_alike(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their model, weights or gradients, under our names."""
    ours = {
        "encoder.cls_token": theirs["vit.embeddings.cls_token"],
        "encoder.pos_embed": theirs["vit.embeddings.position_embeddings"],
        "mask_token": theirs["decoder.mask_token"],
        "decoder_pos_embed": theirs["decoder.decoder_pos_embed"],
    }
    for kind in ("weight", "bias"):
        ours[f"encoder.patch_embed.proj.{kind}"] = theirs[f"vit.embeddings.patch_embeddings.projection.{kind}"]
        ours[f"encoder.norm.{kind}"] = theirs[f"vit.layernorm.{kind}"]
        ours[f"decoder_embed.{kind}"] = theirs[f"decoder.decoder_embed.{kind}"]
        ours[f"decoder.norm.{kind}"] = theirs[f"decoder.decoder_norm.{kind}"]
        ours[f"decoder_pred.{kind}"] = theirs[f"decoder.decoder_pred.{kind}"]
        for their_blocks, our_blocks in (
            ("vit.layers", "encoder.blocks"),
            ("decoder.decoder_layers", "decoder.blocks"),
        ):
            for block in range(2):
                their_block, our_block = f"{their_blocks}.{block}", f"{our_blocks}.{block}"
                for their_layer, our_layer in LAYERS.items():
                    ours[f"{our_block}.{our_layer}.{kind}"] = theirs[f"{their_block}.{their_layer}.{kind}"]
                parts = [theirs[f"{their_block}.attention.{part}_proj.{kind}"] for part in "qkv"]
                ours[f"{our_block}.attn.qkv.{kind}"] = torch.cat(parts)
    return ours


def compute(norm_pix_loss: bool, dtype: torch.dtype):
    """Both models' losses, predictions on masked patches and gradients, after backward."""
    theirs, ours = build_theirs(norm_pix_loss, dtype), build_ours(norm_pix_loss).to(dtype)
    ours.load_state_dict(named_alike(dict(theirs.named_parameters())))
    images, noise = torch.randn(4, 3, 32, 32, dtype=dtype), torch.rand(4, 16, dtype=dtype)
    mask = PatchMask.from_noise(noise, MASK_RATIO)
    their_output = theirs(images, noise=noise)
    assert torch.equal(their_output.mask.bool(), mask.is_masked)
    our_output = ours(images, mask)
    our_loss = our_output.loss_per_patch.mean()
    their_output.loss.backward()
    our_loss.backward()
    trained = {name: p.grad for name, p in theirs.named_parameters()}
    fixed = {name: torch.zeros(1) for name, grad in trained.items() if grad is None}
    assert set(fixed) == {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}
    their_grads = named_alike({**trained, **fixed})
    their_prediction = their_output.logits[mask.is_masked].view(4, 12, -1)
    our_grads = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert len(our_grads) == len(their_grads) - 2 == 60
    return {
        "loss": (our_loss, their_output.loss),
        "prediction": (our_output.prediction, their_prediction),
        **{name: (grad, their_grads[name]) for name, grad in our_grads.items()},
    }


def without_key_bias(name: str, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A qkv bias without the middle third, whose gradient is zero in theory: softmax ignores what all keys share."""
    if not name.endswith("qkv.bias"):
        return pair
    query, key, value = zip(*(grad.chunk(3) for grad in pair), strict=True)
    largest = max(grad.abs().max() for grad in (*query, *value))
    assert all(grad.abs().max() < 1e3 * torch.finfo(grad.dtype).eps * largest for grad in key), name
    ours, theirs = (torch.cat(halves) for halves in zip(query, value, strict=True))
    return ours, theirs


@pytest.mark.parametrize("norm_pix_loss", [False, True], ids=TARGETS)
def test_float64(norm_pix_loss):
    for name, pair in compute(norm_pix_loss, torch.float64).items():
        ours, theirs = without_key_bias(name, pair)
        assert theirs.abs().max() > 1e-6, name
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("norm_pix_loss", [False, True], ids=TARGETS)
def test_float32(norm_pix_loss):
    for name, pair in compute(norm_pix_loss, torch.float32).items():
        ours, theirs = without_key_bias(name, pair)
        assert (ours - theirs).norm() < 1e-5 * theirs.norm(), name


def test_prediction_of_all_patches():
    theirs, ours = build_theirs(False, torch.float64).eval(), build_ours(False, loss_on="all").double().eval()
    ours.load_state_dict(named_alike(dict(theirs.named_parameters())))
    images, noise = torch.randn(2, 3, 32, 32).double(), torch.rand(2, 16).double()
    prediction = ours.predict(images, PatchMask.from_noise(noise, MASK_RATIO))
    torch.testing.assert_close(prediction, theirs(images, noise=noise).logits, rtol=1e-8, atol=1e-12)


def test_position_embeddings():
    theirs = build_2d_sinusoidal_position_embedding(3, 5, 16, cls_token=True)
    row, column = theirs.chunk(2, dim=1)  # released weights hold the column first
    torch.testing.assert_close(sincos_positions((3, 5), 16, 1), torch.cat([column, row], dim=1), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "dim", "depth", "num_heads", "patch_size"),
    [("base/16", 768, 12, 12, 16), ("large/16", 1024, 24, 16, 16), ("huge/14", 1280, 32, 16, 14)],
)
def test_parameter_counts(name, dim, depth, num_heads, patch_size):
    config = ViTMAEConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        intermediate_size=4 * dim,
        patch_size=patch_size,
    )
    with torch.device("meta"):
        theirs, ours = ViTMAEForPreTraining(config), MaskedAutoencoder(name, image_size=(224, 224))
    for counted in (lambda p: True, lambda p: p.requires_grad):
        our_count, their_count = (sum(p.numel() for p in model.parameters() if counted(p)) for model in (ours, theirs))
        assert our_count == their_count
