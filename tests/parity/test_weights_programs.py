"""Exported programs give what torch gives, for batches of any size."""

import numpy as np
import onnxruntime
import pytest
import torch
from weights_making import classification, pretraining, saved

from mae_lightning.commands.inspect import examine
from mae_lightning.weights.content import completed
from mae_lightning.weights.converting import convert
from mae_lightning.weights.exported import run_export
from mae_lightning.weights.opening import open_weights


@pytest.mark.parametrize(("make", "outputs"), [(pretraining, ["tokens", "feature"]), (classification, ["logits"])])
def test_programs(make, outputs, tmp_path):
    task = make()
    weights = completed(open_weights(saved(task, tmp_path / "a.ckpt")))
    model = task.model.encoder if make is pretraining else task.model
    convert(weights, "onnx", tmp_path / "a.onnx")
    convert(weights, "export", tmp_path / "a.pt2")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == outputs
    for batch in (1, 5):
        images = torch.rand(batch, 1, 16, 24)
        x = (images - 0.3) / 0.4
        with torch.no_grad():
            tokens = model.forward_features(x)
            expected = [tokens, tokens[:, 1:].mean(dim=1)] if make is pretraining else [model(x)]
        for results in (session.run(None, {"images": images.numpy()}), run_export(tmp_path / "a.pt2", images)):
            for result, wanted in zip(results, expected, strict=True):
                np.testing.assert_allclose(np.asarray(result), wanted.numpy(), rtol=1e-5, atol=2e-5)
    for name in ("a.onnx", "a.pt2"):
        about, uses = examine(str(tmp_path / name), {})
        assert about["image size"] == [16, 24]
        assert [use for use, reason in uses.items() if reason is None] == ["run without this package"]


def test_what_is_too_large_for_onnx_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mae_lightning.weights.exported.ONNX_BYTES", 1000)
    weights = completed(open_weights(saved(pretraining(), tmp_path / "a.ckpt")))
    with pytest.raises(ValueError, match=r"at most 2 GB, .* use --to export"):
        convert(weights, "onnx", tmp_path / "a.onnx")
