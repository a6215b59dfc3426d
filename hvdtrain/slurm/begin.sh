#!/bin/bash
# The begin of every batch script of hvdtrain's; script.py names the values and puts the rest behind it.
# shellcheck disable=SC2154,SC1090,SC2034

say() { printf '%(%F %T)T hvdtrain: %s\n' -1 "$*"; }

# What Slurm calls this job; of an array, this task. Without Slurm it is empty.
id=${SLURM_JOB_ID:-}
task=${SLURM_ARRAY_TASK_ID:-}
if [[ -n $task ]]; then # each is a run of its own
    id=${SLURM_ARRAY_JOB_ID}_$task
    run=$run-$task
fi
mkdir -p "$run"
# What is there now is of this job's own start before: submitting clears it. At its time limit Slurm may have been asked
# for another start while the run was just about to end.
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 && -s $run/outcome ]]; then
    read -r outcome message <"$run/outcome"
    case $outcome in
        75 | 6 | 7) ;;
        *) say "the run has ended already: $message (exit code $outcome)" && exit "$outcome" ;;
    esac
fi
rm -f "$run/outcome"
[[ -z $own_log ]] || exec >>"$run/slurm-$id.out" 2>&1

# Not every site gives batch scripts its modules.
for file in /etc/profile.d/{modules,lmod,z00_lmod}.sh; do
    [[ ${#modules[@]} == 0 || ! -r $file ]] || type module &>/dev/null || source "$file"
done
for module in "${modules[@]}"; do
    module load "$module" || { say "module load $module: failed; see module avail" && exit 3; }
done
for file in "${sources[@]}"; do
    source "$file" || { say "source $file: failed" && exit 3; }
done
PATH=$bin:$PATH
export PATH
if [[ $(id -u) == 0 ]]; then # Open MPI refuses root unless told twice
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
if [[ ${launcher[0]:-} == srun && -n ${SLURM_CPUS_PER_TASK:-} ]]; then # which srun no longer reads, since Slurm 22.05
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi
