"""Small shards and folders made on the spot."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(value: int, kind: str = "png", size: tuple[int, int] = (6, 8), mode: str = "RGB") -> bytes:
    """An image of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size[::-1], value if mode == "L" else (value, 255 - value, value // 2)).save(
        buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[kind]
    )
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path
