import pytest

from mae_lightning.optim import scaled_lr


def test_linear_in_the_batch():
    assert scaled_lr(1.5e-4, 4096) == pytest.approx(2.4e-3)  # paper Table 8
    assert scaled_lr(1.5e-4, 256) == 1.5e-4
    assert scaled_lr(2e-4, 2048, per=512) == pytest.approx(8e-4)  # SimMIM states rates per 512
