"""Small shards of noise."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_grey_shard(path: Path, num_images: int, num_classes: int | None = None) -> Path:
    """Grey images of 28 x 28 pixels, the same ones each time; with classes, every class in turn."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for index in range(num_images):
            picture = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8)).save(picture, "PNG")
            members = {"png": picture.getvalue()}
            if num_classes is not None:
                members["cls"] = str(index % num_classes).encode()
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{index:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path
