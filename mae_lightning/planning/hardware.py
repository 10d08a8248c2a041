"""GPUs as their makers describe them.

Rates are dense products per second with sums in 32 bit, without sparsity; memory is what the driver reports; links are
one direction. From NVIDIA's data sheets: "V100 Tensor Core GPU" (2020), "A100 Tensor Core GPU" (2022), "H100 Tensor
Core GPU" (2023), "H200 Tensor Core GPU" (2024), "L40S" (2023), and the white paper "Ada GPU Architecture" (2023) for
the RTX 4090. The network between nodes is that of the usual machine: DGX-1 (4 x 100 Gbit/s), DGX A100 (8 x 200), DGX
H100 and H200 (8 x 400); for the cards without NVLink 2 x 100 and 1 x 25 Gbit/s, which are no more than usual.
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        title: Its name.
        tflops_16: Products in bf16 (V100: fp16), 10^12 floating-point operations a second.
        tflops_32: Products in fp32, as torch computes them unless told to use TF32.
        memory: GiB.
        memory_bandwidth: GB/s.
        link: To the other GPUs of a node, GB/s.
        has_nvlink: Whether that is NVLink; otherwise PCI Express.
        network: Of a node of the usual machine, Gbit/s.
    """

    title: str
    tflops_16: float
    tflops_32: float
    memory: float
    memory_bandwidth: float
    link: float
    has_nvlink: bool
    network: float

    @property
    def memory_bytes(self) -> float:
        """The memory in bytes."""
        return self.memory * GIB


GPUS = {
    "v100": Gpu("V100 SXM2 32 GB", 125.0, 15.7, 31.7, 900.0, 150.0, True, 400.0),
    "a100-40": Gpu("A100 SXM 40 GB", 312.0, 19.5, 39.6, 1555.0, 300.0, True, 1600.0),
    "a100": Gpu("A100 SXM 80 GB", 312.0, 19.5, 79.3, 2039.0, 300.0, True, 1600.0),
    "h100": Gpu("H100 SXM 80 GB", 989.0, 67.0, 79.6, 3350.0, 450.0, True, 3200.0),
    "h200": Gpu("H200 SXM 141 GB", 989.0, 67.0, 140.4, 4800.0, 450.0, True, 3200.0),
    "l40s": Gpu("L40S 48 GB", 362.0, 91.6, 45.0, 864.0, 32.0, False, 200.0),
    "rtx4090": Gpu("RTX 4090 24 GB", 165.0, 82.6, 24.0, 1008.0, 32.0, False, 25.0),
}


@dataclass(frozen=True)
class Precision:
    """What a Trainer's precision means for memory and speed.

    Attributes:
        name: As the Trainer takes it.
        weight_bytes: Of a weight, a gradient and each of the optimiser's values.
        is_autocast: Whether products run in 16 bit on copies of the weights.
    """

    name: str
    weight_bytes: int
    is_autocast: bool

    @property
    def is_16_bit(self) -> bool:
        """Whether products run in 16 bit."""
        return self.is_autocast or self.weight_bytes == 2

    def tflops(self, gpu: Gpu) -> float:
        """The GPU's published rate, 10^12 operations a second."""
        return gpu.tflops_16 if self.is_16_bit else gpu.tflops_32


PRECISIONS = {
    "32-true": Precision("32-true", 4, False),
    "bf16-mixed": Precision("bf16-mixed", 4, True),
    "16-mixed": Precision("16-mixed", 4, True),
    "bf16-true": Precision("bf16-true", 2, False),
    "16-true": Precision("16-true", 2, False),
}


def precision_of(name: object) -> Precision:
    """A Trainer's precision, also by its other names: ``32``, ``bf16``, ``16``.

    Raises:
        ValueError: It is not one that can be planned for.
    """
    aliases = {"None": "32-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    full = aliases.get(str(name), str(name))
    if full not in PRECISIONS:
        raise ValueError(f"precision {name} cannot be planned for; there are {', '.join(PRECISIONS)}")
    return PRECISIONS[full]
