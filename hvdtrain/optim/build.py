"""The optimiser of the configuration's recipe."""

from collections.abc import Iterable
from typing import Any

import torch


def sgd(groups: Iterable[dict[str, Any]], *, lr: float, momentum: float) -> torch.optim.SGD:
    """SGD with Nesterov momentum: v ← m·v + g, w ← w - lr·(g + m·v).

    The rate stays outside v, so a change of rate needs no momentum correction (Goyal et al. 2017, section 3, remark 2).
    """
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
