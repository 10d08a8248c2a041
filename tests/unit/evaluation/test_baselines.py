import torch

from mae_lightning.evaluation.baselines import PositionMeanLoss, visible_mean
from mae_lightning.models import PatchMask


def test_visible_mean_equals_a_loop():
    target = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    mask = PatchMask.from_noise(torch.rand(3, 8, generator=torch.Generator().manual_seed(1)), 0.75)
    predicted = visible_mean(target, mask)
    for row in range(3):
        mean = sum(target[row, int(i)] for i in mask.kept[row]) / mask.kept.shape[1]
        for place in range(mask.masked.shape[1]):
            torch.testing.assert_close(predicted[row, place], mean)


def test_position_mean_is_the_best_constant_per_position():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(20, 6, 3, generator=generator) + torch.arange(6).view(1, 6, 1)
    is_masked = torch.rand(20, 6, generator=generator) < 0.7
    metric = PositionMeanLoss(num_patches=6, num_outputs=3)
    metric.update(target[:8], is_masked[:8])
    metric.update(target[8:], is_masked[8:])
    errors = []
    for position in range(6):
        seen = target[is_masked[:, position], position]
        errors += [float((value - seen.mean(0)).square().mean()) for value in seen]
    assert abs(float(metric.compute()) - sum(errors) / len(errors)) < 1e-6


def test_rows_with_nothing_masked_do_not_count():
    metric = PositionMeanLoss(num_patches=2, num_outputs=1)
    metric.update(torch.tensor([[[1.0], [5.0]], [[3.0], [7.0]]]), torch.tensor([[True, True], [True, True]]))
    metric.update(torch.tensor([[[99.0], [99.0]]]), torch.tensor([[False, False]]))
    assert float(metric.compute()) == 1.0
