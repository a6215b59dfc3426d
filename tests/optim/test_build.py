"""The update is the one that the docstring writes down."""

import torch
from torch import nn

from hvdtrain.optim.build import sgd

RATES = (0.1, 0.1, 0.5, 0.02)


def test_the_update_is_nesterovs_with_the_rate_outside_of_the_velocity() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    exempt = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = sgd(
        [{"params": [weight], "weight_decay": 0.01}, {"params": [exempt], "weight_decay": 0.0}], lr=9, momentum=0.9
    )
    w, velocity = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    e, exempt_velocity = exempt.detach().clone(), torch.zeros(1, dtype=torch.float64)
    for lr in RATES:  # a change of rate does not touch the velocity
        optimizer.zero_grad()
        (weight.square().sum() + 5 * exempt.sum()).backward()
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        gradient = 2 * w + 0.01 * w
        velocity = 0.9 * velocity + gradient
        w = w - lr * (gradient + 0.9 * velocity)
        exempt_velocity = 0.9 * exempt_velocity + 5
        e = e - lr * (5 + 0.9 * exempt_velocity)
    torch.testing.assert_close(weight.detach(), w, rtol=1e-14, atol=0)
    torch.testing.assert_close(exempt.detach(), e, rtol=1e-14, atol=0)


def test_without_momentum_it_is_plain_gradient_descent() -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = sgd([{"params": [weight], "weight_decay": 0.0}], lr=0.25, momentum=0)
    (3 * weight).sum().backward()
    optimizer.step()
    assert weight.item() == 1 - 0.25 * 3
