import math

import pytest
import torch

from mae_lightning.optim import warmup_cosine


def rates(warmup_steps: int, total_steps: int, num_steps: int, **options: float) -> list[list[float]]:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (2.0, 0.5)]
    optimizer = torch.optim.SGD(groups)
    scheduler = warmup_cosine(optimizer, warmup_steps, total_steps, **options)
    seen = []
    for _ in range(num_steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_rises_linearly_from_zero_and_falls_by_half_a_cosine():
    seen = rates(4, 12, 14)
    for step, (large, small) in enumerate(seen):
        factor = step / 4 if step < 4 else 0.5 * (1 + math.cos(math.pi * min(1, (step - 4) / 8)))
        assert large == pytest.approx(2 * factor, abs=1e-12)
        assert small == pytest.approx(0.5 * factor, abs=1e-12)
    assert seen[0] == [0, 0]
    assert seen[4] == [2.0, 0.5]
    assert seen[8] == pytest.approx([1.0, 0.25])
    assert seen[13] == pytest.approx([0, 0], abs=1e-12)


def test_ends_at_the_smallest_rate():
    seen = rates(0, 10, 12, min_lr_ratio=0.1)
    assert seen[0] == [2.0, 0.5]
    assert seen[5] == pytest.approx([1.1, 0.275])
    assert seen[11] == pytest.approx([0.2, 0.05])


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(10, 10), (40, 2), (-1, 5), (0, 0)])
def test_warmup_that_does_not_fit_is_refused(warmup_steps, total_steps):
    message = f"^a warm-up of {warmup_steps} steps does not fit a run of {total_steps}; train longer or warm up less$"
    with pytest.raises(ValueError, match=message):
        rates(warmup_steps, total_steps, 0)
