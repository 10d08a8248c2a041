"""LARS against a loop written after its paper, at weight decay 0: the linear probe's optimiser."""

import torch

from mae_lightning.optim import build_lars


def loop_lars(parameters, gradients, buffers, *, lr, momentum=0.9, trust=0.001):
    """One step in place; one-dimensional parameters are not scaled."""
    for place, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        step = gradient.clone()
        weight_norm, step_norm = parameter.norm(), step.norm()
        if parameter.ndim > 1 and weight_norm > 0 and step_norm > 0:
            step = step * (trust * weight_norm / step_norm)
        buffers[place] = step if buffers[place] is None else momentum * buffers[place] + step
        parameter -= lr * buffers[place]


def test_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (5,), (2, 5), (2,), (4, 4)]
    start = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    start[-1].zero_()  # a weight without a norm learns unscaled
    ours = [torch.nn.Parameter(value.clone()) for value in start]
    expected, buffers = [value.clone() for value in start], [None] * len(shapes)
    optimizer = build_lars(ours, lr=6.4)
    for _ in range(5):
        gradients = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for parameter, gradient in zip(ours, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        loop_lars(expected, gradients, buffers, lr=6.4)
    for parameter, value in zip(ours, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-7, atol=1e-9)


def test_frozen_parameters_are_left_out():
    frozen = torch.nn.Parameter(torch.ones(3, 3), requires_grad=False)
    trained = torch.nn.Parameter(torch.ones(3, 3))
    (group,) = build_lars([frozen, trained], lr=1.0).param_groups
    assert [parameter is trained for parameter in group["params"]] == [True]
