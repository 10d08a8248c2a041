"""Codes of a tokenizer as the target: files, grids, cross-entropy, and what is refused."""

import math
import os
import pickle
import sys
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from mae_lightning.models import (
    DiscreteVAE,
    MaskedAutoencoder,
    PatchMask,
    Pixels,
    Tokens,
    TransformerDecoder,
    ViTSize,
    load_tokenizer,
    save_tokenizer,
)

IMAGE_SIZE, PATCH = (16, 24), (8, 8)


@pytest.fixture
def tokenizer() -> DiscreteVAE:
    torch.manual_seed(0)
    return DiscreteVAE(num_channels=2, stride=4, num_codes=11, dim=6).eval()


@pytest.fixture
def path(tokenizer, tmp_path) -> str:
    save_tokenizer(tokenizer, tmp_path / "small.safetensors")
    return str(tmp_path / "small.safetensors")


def exported(tokenizer, path, images: torch.Tensor, **options) -> str:
    torch.onnx.export(tokenizer.encoder, (images,), path, dynamo=False, **options)
    return str(path)


@pytest.fixture
def onnx_path(tokenizer, tmp_path, recwarn) -> str:
    return exported(tokenizer, tmp_path / "small.onnx", torch.zeros(1, 2, 8, 12), **BATCHES)


BATCHES = {
    "input_names": ["images"],
    "output_names": ["logits"],
    "dynamic_axes": {"images": {0: "n"}, "logits": {0: "n"}},
}
legacy_export = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*LeafSpec:FutureWarning")


def build(target) -> MaskedAutoencoder:
    torch.manual_seed(0)
    decoder = TransformerDecoder(depth=1, dim=8, num_heads=2)
    return MaskedAutoencoder(ViTSize(16, 1, 2, PATCH), decoder, target, image_size=IMAGE_SIZE, num_channels=2)


def test_a_tokenizer_survives_its_file(tokenizer, path):
    again = load_tokenizer(path)
    images = torch.rand(2, 2, 8, 12)
    assert torch.equal(again(images), tokenizer(images))
    assert again.codes(images).shape == (2, 2, 3)
    assert not any(parameter.requires_grad for parameter in again.parameters())


def codes_by_loop(tokenizer, raw: torch.Tensor) -> list[list[int]]:
    """Of each image, resized to one stride a patch."""
    rows = []
    for image in raw:
        small = F.interpolate(image[None], (8, 12), mode="bicubic", antialias=True).clamp(0, 1)
        logits = tokenizer(small)[0].detach()
        rows.append([max(range(11), key=lambda k: float(logits[k, r, c])) for r in range(2) for c in range(3)])
    return rows


def check_codes_and_loss(target, tokenizer) -> None:
    model = build(target)
    model.target.show_pixels(lambda images: images * 0.2 + 0.5)
    raw = torch.rand(3, 2, *IMAGE_SIZE)
    images = (raw - 0.5) / 0.2
    mask = PatchMask.from_noise(torch.rand(3, 6), 0.5)
    codes = codes_by_loop(tokenizer, raw)
    assert model.target(model.patches(images)).tolist() == codes
    output = model(images, mask)
    assert output.prediction.shape == (3, 3, 11)
    for image in range(3):
        for place, patch in enumerate(mask.masked[image].tolist()):
            logits = output.prediction[image, place].tolist()
            surprise = math.log(sum(math.exp(value) for value in logits)) - logits[codes[image][patch]]
            assert output.loss_per_patch[image, place].item() == pytest.approx(surprise, rel=1e-4)
    output.loss_per_patch.mean().backward()
    assert model.decoder_pred.weight.grad.any()
    assert not any("target" in name for name in model.state_dict())
    copy = deepcopy(model)
    assert torch.equal(copy.target(model.patches(images)), model.target(model.patches(images)))


def test_codes_and_cross_entropy_of_the_built_in_architecture(tokenizer, path):
    check_codes_and_loss(Tokens(path), tokenizer)


@legacy_export
def test_codes_and_cross_entropy_of_an_onnx_program(tokenizer, onnx_path):
    check_codes_and_loss(Tokens(onnx_path), tokenizer)


@legacy_export
def test_a_program_of_any_size_needs_one(tokenizer, tmp_path):
    names = {"input_names": ["images"], "output_names": ["logits"]}
    axes = {name: {0: "n", 2: f"{name}_h", 3: f"{name}_w"} for name in ("images", "logits")}
    path = exported(tokenizer, tmp_path / "any.onnx", torch.zeros(1, 2, 8, 12), dynamic_axes=axes, **names)
    with pytest.raises(ValueError, match=r"any.onnx takes images of any size; give the target's size$"):
        build(Tokens(path))
    build(Tokens(path, size=(8, 12)))


def test_another_grid_is_refused(path):
    with pytest.raises(ValueError, match=r"gives 4 x 6 codes for 16 x 24 pixels, and there are 2 x 3 patches; the two"):
        build(Tokens(path, size=IMAGE_SIZE))


def test_other_channels_are_refused(tmp_path):
    save_tokenizer(DiscreteVAE(3, 4, 5, 4), tmp_path / "colour.safetensors")
    with pytest.raises(ValueError, match=r"is for images of 3 channels, not 2$"):
        build(Tokens(str(tmp_path / "colour.safetensors")))


def test_files_that_could_run_code_are_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.abort, ())

    for suffix in (".pkl", ".pt", ".pt2"):
        trap = tmp_path / f"trap{suffix}"
        trap.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(ValueError, match=r"must be a .safetensors or .onnx file; others could run code$"):
            Tokens(str(trap))
    for suffix, message in ((".safetensors", "is damaged or no safetensors"), (".onnx", "is no ONNX program")):
        (tmp_path / f"trap{suffix}").write_bytes(pickle.dumps(Trap()))
        with pytest.raises(ValueError, match=message):
            Tokens(str(tmp_path / f"trap{suffix}"))
        with pytest.raises(FileNotFoundError, match=r"^there is no tokenizer nowhere"):
            Tokens(f"nowhere{suffix}")


def test_other_safetensors_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"is no tokenizer of mae_lightning; its metadata would name"):
        Tokens(str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("said", ["{", "[1]", '{"a": 1}', '{"stride": "x"}', '{"num_channels": 1, "stride": 8}'])
def test_metadata_of_another_tokenizer_are_one_line(path, said):
    from safetensors.torch import load_file, save_file

    save_file(load_file(path), path, metadata={"mae_lightning.DiscreteVAE": said})
    with pytest.raises(ValueError, match=r"does not hold the tokenizer that its metadata describes: ."):
        load_tokenizer(path)


def test_a_missing_onnxruntime_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'mae-lightning\[export\]'$"):
        Tokens("some.onnx")


def test_a_stride_is_a_power_of_two():
    with pytest.raises(ValueError, match=r"must be a power of 2 such as 4 or 8, not 6$"):
        DiscreteVAE(stride=6)


def test_a_tokenizer_learns_to_reconstruct():
    torch.manual_seed(0)
    tokenizer = DiscreteVAE(num_channels=1, stride=4, num_codes=16, dim=16)
    images = torch.rand(16, 1, 2, 2).round().repeat_interleave(4, 2).repeat_interleave(4, 3)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        tokenizer.loss(images, temperature=max(0.5, 1 - step / 60)).mean().backward()
        optimizer.step()
    hard = F.one_hot(tokenizer.codes(images), 16).movedim(-1, 1).float()
    assert (tokenizer.decode(hard) - images).square().mean() < images.var() / 4
    assert len(tokenizer.codes(images).unique()) > 1


def test_pixels_are_compared_as_before():
    model = build(Pixels())
    images, mask = torch.randn(2, 2, *IMAGE_SIZE), PatchMask.from_noise(torch.rand(2, 6), 0.5)
    output = model(images, mask)
    for image in range(2):
        for place, patch in enumerate(mask.masked[image].tolist()):
            error = output.prediction[image, place] - model.patches(images)[image, patch]
            torch.testing.assert_close(output.loss_per_patch[image, place], error.square().mean())
