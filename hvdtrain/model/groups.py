"""Which parameters weight decay applies to, told by the type of the module that owns them."""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two optimiser groups: all parameters with `weight_decay`, but those of normalisation layers without.

    Source: Goyal et al. 2017, section 5.1: no decay of batch norm's scale and shift.
    """
    norm = {id(p) for module in _norms(model) for p in module.parameters(recurse=False)}
    decayed = [p for p in model.parameters() if id(p) not in norm]
    exempt = [p for p in model.parameters() if id(p) in norm]
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": weight_decay}]
    return [*groups, {"params": exempt, "weight_decay": 0.0}] if exempt else groups


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, NORMS))
