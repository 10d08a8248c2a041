"""The README's way from OpenAI's dVAE to a target: its lines, run with a stand-in of the package that they import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from mae_lightning.models import Tokens

ROOT = Path(__file__).parents[2]
STAND_IN = '''
"""Of the published package: an encoder of stride 8, and its scaling of pixels."""
import torch

def map_pixels(images):
    return 0.8 * images + 0.1

class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 7, padding=3), torch.nn.MaxPool2d(8), torch.nn.ReLU(), torch.nn.Conv2d(4, 50, 1)
        )

    def forward(self, images):
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.float32:
            raise ValueError("input is not as it should be")
        return self.blocks(images)

def load_model(path, device):
    assert path == "encoder.pkl"
    return Encoder().to(device)
'''


def test_the_lines_give_a_target(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# dvae_to_onnx\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "dall_e.py").write_text(STAND_IN)
    (tmp_path / "dvae_to_onnx.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "dvae_to_onnx.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]

    target = Tokens(str(tmp_path / "dvae.onnx"))
    target.prepare((224, 224), (16, 16), 3)
    images = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    codes = target._reader.codes(torch.nn.functional.interpolate(images, (112, 112)))
    namespace: dict[str, object] = {}
    exec(STAND_IN, namespace)
    small = torch.nn.functional.interpolate(images, (112, 112))
    with torch.no_grad():
        expected = namespace["Encoder"]()(namespace["map_pixels"](small)).argmax(dim=1)  # type: ignore[operator]
    assert codes.shape == (3, 14, 14)
    assert (codes == expected).float().mean() > 0.99  # a tie in the last bit may fall the other way
