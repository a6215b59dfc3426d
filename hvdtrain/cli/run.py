"""train, config."""

from argparse import Namespace
from typing import TYPE_CHECKING

from hvdtrain.config.load import add_options, from_options, to_yaml
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from pydantic_settings import CliSettingsSource

    from hvdtrain.cli.verbs import Verbs
    from hvdtrain.config.schema import Config


def add(verbs: "Verbs") -> None:
    train = verbs.add_parser("train", help="train, alone or as one of the workers of mpirun, horovodrun or srun")
    options = add_options(train)
    train.set_defaults(parser=train, verb=lambda given, topology: _train(given, topology, options))

    config = verbs.add_parser("config", help="print the whole configuration that a command line means, as YAML")
    resolved = add_options(config)
    config.set_defaults(parser=config, verb=lambda given, _: _config(given, resolved))


def _train(given: Namespace, topology: Topology, options: "CliSettingsSource[Config]") -> int:
    config = from_options(options, given)  # before anything heavy: a typing error costs no start-up
    from hvdtrain.train.run import run

    run(config, topology)
    return 0


def _config(given: Namespace, options: "CliSettingsSource[Config]") -> int:
    print(to_yaml(from_options(options, given)), end="")
    return 0
