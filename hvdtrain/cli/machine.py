"""doctor."""

from argparse import Namespace, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs

DOCTOR = """\
What a run would find on this machine: the program, torch, Horovod, MPI, DALI, the
variables that it would set, and for what is wrong a remedy.

    hvdtrain doctor

Exit codes: 0 a run would work; 1 it would not.
"""


def add(verbs: "Verbs") -> None:
    doctor = verbs.add_parser(
        "doctor",
        help="what a run would find on this machine, with a remedy for what is wrong",
        description=DOCTOR,
        formatter_class=RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="machine-readable (JSON) output")
    doctor.set_defaults(parser=doctor, verb=_doctor)


def _doctor(given: Namespace, _: Topology) -> int:
    from hvdtrain import doctor

    findings = doctor.examine()
    print(doctor.as_json(findings) if given.json else doctor.render(findings))
    return 0 if doctor.usable(findings) else 1
