"""The table of layers is torchvision's."""

import pytest
from layers import FIELDS, layers

from hvdtrain.errors import ConfigError
from hvdtrain.plan.models import network, networks


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "inception_v3", "efficientnet_b0"])
def test_the_stored_layers_are_torchvisions(name: str) -> None:
    import csv
    from importlib.resources import files

    with (files("hvdtrain.plan") / "layers.csv").open() as file:
        stored = [row for row in csv.DictReader(file) if row["model"] == name]
    made = [{key: str(row[key]) for key in FIELDS} for row in layers(name)]
    assert stored == made


def test_gradients_arrive_from_the_last_layer_to_the_first() -> None:
    resnet = network("resnet50")
    assert resnet.parameters == 25_557_032
    assert resnet.elements[0] == 2048 * 1000 + 1000
    assert resnet.elements[-1] == 64 * 3 * 49
    assert (resnet.ready[1:] >= resnet.ready[:-1]).all()
    assert resnet.ready[-1] == 1.0


def test_an_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--model resnet5: .*resnet50, resnet101"):
        network("resnet5")
    assert len(networks()) == 10
