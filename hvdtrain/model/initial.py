"""How a network's weights begin, where it is not as its constructor leaves them."""

import torch
from torch import nn

from hvdtrain import torchvision


def zero_last_gamma(model: nn.Module) -> int:
    """Begin with every residual block as the identity: the scale of its last batch normalisation is 0.

    Goyal et al. 2017, section 5.1: it eases optimisation at the start (their table 2b).

    Returns:
        the number of blocks; 0 for a network without normalisation.
    """
    last = [last_of_branch(block, "bn") for block in residual_blocks(model)]
    norms = [norm for norm in last if isinstance(norm, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.zeros_(norm.weight)
    return len(norms)


def normal_head(model: nn.Module, std: float) -> None:
    """Draw the weights of the last linear layer from N(0, std²); its bias is 0.

    Goyal et al. 2017, section 5.1: 0.01.
    """
    *_, head = (module for module in model.modules() if isinstance(module, nn.Linear))
    nn.init.normal_(head.weight, std=std)
    nn.init.zeros_(head.bias)


def scale_branches(model: nn.Module) -> None:
    """Scale the last convolution of each residual branch by blocks^(-1/2), so that the signal grows with no depth.

    Zhang et al. 2019, "Fixup Initialization", section 2.
    """
    blocks = residual_blocks(model)
    with torch.no_grad():
        for block in blocks:
            convolution = last_of_branch(block, "conv")
            assert isinstance(convolution, nn.Conv2d)
            convolution.weight.mul_(len(blocks) ** -0.5)


def residual_blocks(model: nn.Module) -> list[nn.Module]:
    """By their type, in order of registration; none in a network of another kind."""
    resnet = torchvision.load().models.resnet
    return [module for module in model.modules() if isinstance(module, resnet.BasicBlock | resnet.Bottleneck)]


def last_of_branch(block: nn.Module, kind: str) -> nn.Module:
    """The last `conv` or `bn` on a residual block's own way, as torchvision numbers them: 2 or, of a bottleneck, 3."""
    module: nn.Module = getattr(block, f"{kind}3" if hasattr(block, f"{kind}3") else f"{kind}2")
    return module
