"""doctor."""

from argparse import Namespace
from typing import TYPE_CHECKING

from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs


def add(verbs: "Verbs") -> None:
    doctor = verbs.add_parser("doctor", help="what a run would find on this machine, with a remedy for what is wrong")
    doctor.add_argument("--json", action="store_true", help="the same for machines")
    doctor.set_defaults(parser=doctor, verb=_doctor)


def _doctor(given: Namespace, _: Topology) -> int:
    from hvdtrain import doctor

    findings = doctor.examine()
    print(doctor.as_json(findings) if given.json else doctor.render(findings))
    return 0 if doctor.usable(findings) else 1
