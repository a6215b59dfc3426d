"""Settings of the machines: how their workers talk, come and go, and the job that a cluster is asked for."""

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field

from hvdtrain.config.section import Count, NonNegative, Positive, Section


class DistributedConfig(Section):
    reducer: Literal["buckets", "horovod"] = "buckets"
    """Who fuses gradients: buckets of fixed contents, which repeat bit for bit, or Horovod's DistributedOptimizer."""
    compression: Literal["none", "fp16"] = "none"
    """fp16: gradients travel as half precision; a step in which one overflows is left out."""
    bucket_mib: Positive = 25.0
    """Size of a gradient bucket, MiB. HOROVOD_FUSION_THRESHOLD (bytes) in the environment wins."""
    ring: bool = True
    """Ask Open MPI and NCCL for the ring algorithm. Its settings in the environment win."""
    yield_when_idle: bool = True
    """Let a waiting MPI thread give its core away; spinning starves workers that own few cores."""
    fabric: Literal["auto", "cpu", "node", "ethernet", "infiniband"] = "auto"
    """What connects the workers, for a preset of MPI's and NCCL's variables: one machine's CPUs, one node of several
    GPUs, an Ethernet or an InfiniBand cluster. auto: what the libraries find."""
    interfaces: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,15}$")], ...] = ()
    """Network interfaces that MPI, NCCL and Gloo (the first one) use, as [eth0]. []: what they find."""
    cycle_milliseconds: Positive | None = None
    """HOROVOD_CYCLE_TIME: how often Horovod looks for tensors that all workers have ready. null: Horovod's 1 ms, and
    0.1 where all workers compute on the CPUs of one node."""
    cache_capacity: Annotated[int, Ge(0), Le(2**31 - 1)] | None = None
    """HOROVOD_CACHE_CAPACITY: tensors whose negotiation Horovod remembers. null: Horovod's 1024. 0: none."""
    hierarchical_allreduce: bool | None = None
    """HOROVOD_HIERARCHICAL_ALLREDUCE: NCCL within a node, MPI between nodes. null: Horovod's choice, false."""
    threads: Count | None = None
    """CPU threads that each worker computes with. null: its share of the cores. OMP_NUM_THREADS wins."""
    bind: Literal["auto", "none"] = "none"
    """auto: where the launcher leaves all cores of a node to all its workers, each gets cores of its own, within a NUMA
    node where they fit; for machines that nothing else uses. none: they stay wherever the launcher put them."""
    preflight: bool = True
    """Before the first step, check and time the sum of 51 MB over all workers."""
    watchdog_seconds: NonNegative = 300.0
    """A worker that was silent for so long, or a step that takes so long, ends the run, with the stacks of all workers
    in its logs. 0: wait for ever."""


class ElasticConfig(Section):
    enabled: bool = False
    """Go on while workers come and go, under horovodrun --gloo with --host-discovery-script. --elastic is short for
    it."""
    commit_steps: Count = 10
    """Steps between two copies of the state in every worker's memory: so many a lost worker costs at most."""
    ramp_epochs: NonNegative = 0.25
    """Where k workers make the minibatch larger than before, the rate rises with it in so many epochs; down it goes at
    once."""
    wait_seconds: Positive = 900.0
    """How long a worker waits for its place among the others, or for hosts, before it ends with exit code 7."""


class JobConfig(Section):
    """What `hvdtrain submit` asks a cluster for. Training itself does not look at it."""

    nodes: Count = 1
    """Nodes of the job."""
    workers_per_node: Count | None = None
    """Workers on each node, one per GPU as a rule. null: as many as gpus_per_node, or one where there are none."""
    gpus_per_node: Annotated[int, Ge(0)] = 0
    """GPUs of each node that the job gets. 0: none is asked for."""
    cores_per_worker: Count | None = None
    """Cores that each worker gets. null: what the site gives."""
    time_limit: str = ""
    """Longest time that the job may take until it is requeued, as sbatch takes it: 30, 12:00:00, 1-00:00:00. Empty: the
    partition's."""
    partition: str = ""
    """Partition that the job goes to. Empty: the site's default."""
    account: str = ""
    """Account that pays for it. Empty: the user's default."""
    launcher: Literal["mpirun", "srun"] = "mpirun"
    """Who starts the workers within the job."""
    mpi: str = "pmix"
    """Plug-in by which srun and MPI find each other; srun --mpi=list names those of a site."""
    warn_seconds: Annotated[int, Ge(0)] = 120
    """So long before its time limit, and when it is preempted, the run is told to save and leave. 0: never."""
    max_requeues: Annotated[int, Ge(0)] = 20
    """How often the job goes back into the queue by itself, after a preemption, a time limit or a lost node."""
    modules: tuple[str, ...] = ()
    """Environment modules that are loaded first, as [openmpi/4.1.6,cuda/12.4]."""
    source: tuple[Path, ...] = ()
    """Shell scripts that are sourced after that, for what a site wants else."""
    container: str = ""
    """Image in which the workers run. Empty: none."""
    container_runtime: Literal["pyxis", "apptainer"] = "apptainer"
    """Who runs it: pyxis, a plug-in of srun's, or apptainer."""
    path: str = ""
    """Folder of the hvdtrain that the workers are, as the nodes see it. Empty: that of the one that submits."""
    sbatch: dict[str, str] = Field(default_factory=dict)
    """Any other option of sbatch by its long name, each with its own --job.sbatch: --job.sbatch qos=high. One without a
    value ends in =, as exclusive=. array=0-3 makes four runs of one, with a seed each."""
