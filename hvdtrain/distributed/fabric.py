"""What suits which network: presets of the variables that Open MPI, NCCL and Horovod read.

`distributed.fabric` chooses one; a setting and a variable in the environment win over it. None of them changes the
order of summation, so none changes the numbers of a run. Hierarchical allreduce is in none for that reason, and because
NCCL's ring enters and leaves each node once as it is.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    name: str
    value: str
    why: str


_NO_IB = (
    Advice("OMPI_MCA_pml", "ob1", "UCX and libfabric are not looked for, nor chosen over a device that is not there"),
    Advice("OMPI_MCA_btl", "^openib", "Open MPI 4 warns of InfiniBand that it cannot use, and may wait for it"),
)
# Horovod's own advice (docs/mpi.rst, "Non-routed network interfaces"): a bridge of containers has an address on every
# host, the same one, and whoever connects to it waits for ever.
_ROUTED = (
    Advice("OMPI_MCA_btl_tcp_if_exclude", "lo,docker0", "these have addresses that no other host reaches"),
    Advice("NCCL_SOCKET_IFNAME", "^lo,docker", "these have addresses that no other host reaches"),
)

FABRICS: dict[str, tuple[Advice, ...]] = {
    "auto": (),
    "cpu": (
        *_NO_IB,
        Advice("HOROVOD_GLOO_IFACE", "lo", "one machine talks to itself, whatever becomes of its network"),
    ),
    "node": (
        *_NO_IB,
        Advice("HOROVOD_GLOO_IFACE", "lo", "one machine talks to itself, whatever becomes of its network"),
        Advice("NCCL_SOCKET_IFNAME", "lo", "NCCL's workers find each other without a network"),
        Advice("NCCL_IB_DISABLE", "1", "no bytes leave the node, so no adapter is opened"),
    ),
    "ethernet": (
        *_NO_IB,
        *_ROUTED,
        Advice("NCCL_IB_DISABLE", "1", "NCCL does not search for adapters that are not there"),
        Advice("NCCL_SOCKET_NTHREADS", "4", "one TCP stream does not fill 25 Gb/s and more; NCCL's manual says 4 x 4"),
        Advice("NCCL_NSOCKS_PERTHREAD", "4", "as NCCL_SOCKET_NTHREADS; 4 x 4 = 16 sockets for each link of the ring"),
    ),
    "infiniband": (
        Advice("OMPI_MCA_pml", "ucx", "the one path over InfiniBand that Open MPI 4 and 5 support"),
        Advice("OMPI_MCA_btl", "^openib,uct", "whatever is not UCX's would open the adapter a second time"),
        Advice("NCCL_IB_DISABLE", "0", "NCCL uses the adapters also where a site's default is sockets"),
        Advice("NCCL_SOCKET_IFNAME", "^lo,docker", "for the first contact, which goes over IP"),
    ),
}
