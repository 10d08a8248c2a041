import pytest
import torch

from mae_lightning.models import MaskedAutoencoder, TransformerDecoder, ViTSize
from mae_lightning.weights.official import from_official, to_official

# Names and shapes in the official mae_vit_base_patch16 checkpoint: 12 encoder blocks and 8 decoder blocks.
STEM = {
    "cls_token": (1, 1, 768),
    "pos_embed": (1, 197, 768),
    "mask_token": (1, 1, 512),
    "decoder_pos_embed": (1, 197, 512),
    "patch_embed.proj.weight": (768, 3, 16, 16),
    "patch_embed.proj.bias": (768,),
    "norm.weight": (768,),
    "norm.bias": (768,),
    "decoder_embed.weight": (512, 768),
    "decoder_embed.bias": (512,),
    "decoder_norm.weight": (512,),
    "decoder_norm.bias": (512,),
    "decoder_pred.weight": (768, 512),
    "decoder_pred.bias": (768,),
}


def block(dim: int) -> dict[str, tuple[int, ...]]:
    weights = {
        "attn.qkv": (3 * dim, dim),
        "attn.proj": (dim, dim),
        "mlp.fc1": (4 * dim, dim),
        "mlp.fc2": (dim, 4 * dim),
    }
    shapes = {f"{norm}.{kind}": (dim,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    for name, shape in weights.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def official_base() -> dict[str, tuple[int, ...]]:
    shapes = dict(STEM)
    for prefix, depth, dim in (("blocks", 12, 768), ("decoder_blocks", 8, 512)):
        shapes |= {f"{prefix}.{index}.{key}": shape for index in range(depth) for key, shape in block(dim).items()}
    return shapes


@pytest.fixture
def model() -> MaskedAutoencoder:
    decoder = TransformerDecoder(depth=2, dim=8, num_heads=2)
    return MaskedAutoencoder(ViTSize(16, 3, 4, (4, 2)), decoder, image_size=(8, 12), num_channels=5)


def test_base_has_the_official_names_and_shapes_both_ways():
    with torch.device("meta"):
        model = MaskedAutoencoder("base/16", image_size=(224, 224))
        official = {name: torch.empty(shape) for name, shape in official_base().items()}
    assert len(official) == 254
    assert {name: tuple(value.shape) for name, value in to_official(model.state_dict()).items()} == official_base()
    model.load_state_dict(from_official({"model": official, "epoch": 799}), assign=True)


def test_there_and_back_is_bit_exact(model):
    state = model.state_dict()
    back = from_official({"model": to_official(state)})
    assert back.keys() == state.keys()
    assert all(back[key] is state[key] for key in state)


def test_each_tensor_goes_to_its_own_place(model):
    official = to_official(model.state_dict())
    assert torch.equal(official["blocks.2.mlp.fc1.weight"], model.encoder.blocks[2].mlp.fc1.weight)
    assert torch.equal(official["decoder_blocks.1.attn.qkv.weight"], model.decoder.blocks[1].attn.qkv.weight)
    assert torch.equal(official["pos_embed"], model.encoder.pos_embed)
    assert torch.equal(official["decoder_pos_embed"], model.decoder_pos_embed)
    assert torch.equal(official["decoder_pred.weight"], model.decoder_pred.weight)
    assert torch.equal(official["norm.weight"], model.encoder.norm.weight)
    assert torch.equal(official["decoder_norm.bias"], model.decoder.norm.bias)


def test_encoder_only_files(model):
    official = {name: value for name, value in to_official(model.state_dict()).items() if "decoder" not in name}
    del official["mask_token"]
    ours = from_official(official)
    assert ours.keys() == {f"encoder.{key}" for key in model.encoder.state_dict()}
    assert all(back is official[key] for key, back in to_official(ours).items())
    model.encoder.load_state_dict({key.removeprefix("encoder."): value for key, value in ours.items()})


def test_every_missing_and_unexpected_key_is_named(model):
    official = to_official(model.state_dict())
    for key in ("norm.weight", "blocks.1.attn.qkv.bias", "mask_token"):
        del official[key]
    official |= {"fc_norm.weight": torch.ones(1), "head.bias": torch.ones(1)}
    with pytest.raises(ValueError) as caught:
        from_official(official)
    assert str(caught.value) == (
        "the weights do not fit the official layout: missing: blocks.1.attn.qkv.bias, mask_token, norm.weight; "
        "unexpected: fc_norm.weight, head.bias"
    )


def test_half_a_decoder_is_not_an_encoder_only_file(model):
    official = {name: value for name, value in to_official(model.state_dict()).items() if "decoder" not in name}
    with pytest.raises(ValueError, match=r"missing: decoder_embed.bias, decoder_embed.weight, decoder_norm.bias, "):
        from_official(official)


def test_a_model_that_the_layout_has_no_names_for_is_refused(model):
    state = model.state_dict() | {"encoder.reg_token": torch.zeros(1, 4, 16)}
    with pytest.raises(ValueError) as caught:
        to_official(state)
    assert str(caught.value) == (
        "the weights do not fit the official layout, under this package's names: unexpected: encoder.reg_token"
    )
