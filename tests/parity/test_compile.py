"""The model compiles as one graph, once for all batches, and computes the same."""

import subprocess
import sys

import pytest

# A process of its own: the import hook that checks shapes in tests and full graphs do not go together.
SCRIPT = """
import sys
import torch
from mae_lightning.models import MaskedAutoencoder, PatchMask, TransformerDecoder, ViTSize, sample_noise

torch._dynamo.config.error_on_recompile = True
backend, loss_on = sys.argv[1:]
decoder = TransformerDecoder(depth=1, dim=16, num_heads=2)
model = MaskedAutoencoder(ViTSize(32, 2, 4, (4, 8)), decoder, image_size=(16, 32), loss_on=loss_on)
compiled = torch.compile(model, fullgraph=True, backend=backend)

def run(model, batch):
    images = torch.randn(4, 3, 16, 32, generator=torch.Generator().manual_seed(batch))
    mask = PatchMask.from_noise(sample_noise(torch.arange(4), model.num_patches, seed=batch, epoch=0), 0.75)
    model.zero_grad()
    output = model(images, mask)
    output.loss_per_patch.mean().backward()
    return [output.loss_per_patch, output.prediction, *(p.grad for p in model.parameters() if p.requires_grad)]

for batch in range(2):
    for eager, graph in zip(run(model, batch), run(compiled, batch), strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-4, atol=1e-6)
print("equal")
"""


@pytest.mark.parametrize("loss_on", ["masked", "all"])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_one_graph(backend, loss_on):
    command = [sys.executable, "-c", SCRIPT, backend, loss_on]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "equal\n", result.stderr
