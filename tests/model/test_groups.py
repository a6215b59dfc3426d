"""Weight decay is for weights, and not for what normalises."""

import pytest
import torch
from torch import nn

from hvdtrain.model.build import build
from hvdtrain.model.groups import decay_groups


def names(model: nn.Module, group: dict[str, object]) -> list[str]:
    wanted = {id(parameter) for parameter in group["params"]}  # type: ignore[attr-defined]
    return [name for name, parameter in model.named_parameters() if id(parameter) in wanted]


def test_normalisation_is_told_by_its_type_and_not_by_its_name() -> None:
    model = nn.ModuleDict(
        {
            "norm_looking": nn.Conv2d(3, 3, 1),
            "weights": nn.BatchNorm2d(3),
            "layer": nn.LayerNorm(3),
            "group": nn.GroupNorm(1, 3),
            "one": nn.BatchNorm1d(3),
            "sync": nn.SyncBatchNorm(3),
            "head": nn.Linear(3, 3),
        }
    )
    decayed, exempt = decay_groups(model, 0.25)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.25, 0.0)
    assert {name.split(".")[0] for name in names(model, decayed)} == {"norm_looking", "head"}
    assert {name.split(".")[0] for name in names(model, exempt)} == {"weights", "layer", "group", "one", "sync"}
    assert "head.bias" in names(model, decayed)  # the paper exempts batch norm alone


@pytest.mark.parametrize(("name", "norms"), [("resnet8", 9), ("resnet50", 53)])
def test_every_parameter_of_a_network_is_in_one_group(name: str, norms: int) -> None:
    with torch.device("meta"):
        model = build(name, classes=10, norm="batch")
    groups = decay_groups(model, 1e-4)
    assert sorted(n for group in groups for n in names(model, group)) == sorted(dict(model.named_parameters()))
    assert len(names(model, groups[1])) == 2 * norms


def test_a_network_without_normalisation_has_one_group() -> None:
    model = build("resnet8", classes=10, norm="none")
    (group,) = decay_groups(model, 0.5)
    assert group["weight_decay"] == 0.5
    assert len(names(model, group)) == len(list(model.parameters()))
