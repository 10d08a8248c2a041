"""What the input has to give so that the GPUs do not wait."""

import json
from dataclasses import dataclass
from pathlib import Path

IMAGES_A_CORE = 687.0
"""JPEGs of ImageNet decoded and cropped to 224 x 224 a second, measured on one core of 2025."""
IMAGE_BYTES = 114e3
"""Of an ImageNet JPEG on average, in the sample that was measured."""
REENCODED_IMAGES_A_CORE = 1800.0
"""Likewise of the same images re-encoded at a short side of 256 pixels, quality 92."""


@dataclass(frozen=True)
class Feeding:
    """The needs of one node.

    Attributes:
        images_per_second: That its GPUs take.
        images_a_core: That a core prepares.
        megabytes_per_second: That are read.
        is_measured: Whether the pace of a core was measured on the user's data.
    """

    images_per_second: float
    images_a_core: float
    megabytes_per_second: float
    is_measured: bool

    @property
    def cores(self) -> float:
        """Cores of a node that keep up."""
        return self.images_per_second / self.images_a_core


def images_a_core_of(path: Path) -> float:
    """The pace that ``bench data --out`` has written.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; bench data --config RECIPE --out {path} writes it")
    try:
        return 1000 / float(json.loads(path.read_text())["costs"]["whole"]["median"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what bench data --out has written") from error


def feeding(images_per_second: float, image_bytes: float | None, measured: float | None) -> Feeding:
    """What a node needs.

    Args:
        images_per_second: Of the node.
        image_bytes: Of a stored image; None takes ImageNet's.
        measured: Images a second that a core prepares; None takes ImageNet's.
    """
    return Feeding(
        images_per_second,
        measured or IMAGES_A_CORE,
        images_per_second * (image_bytes or IMAGE_BYTES) / 1e6,
        measured is not None,
    )
