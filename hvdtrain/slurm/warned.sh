#!/bin/bash
# The begin of a training job: from now on a warning ends nothing. Behind it come begin.sh and body.sh.
# shellcheck disable=SC2034,SC2154,SC2329

# Whoever warns, and however: the workers understand SIGUSR2, and NCCL may take SIGUSR1.
launched='' began=0 warned='' interrupted=''
warn() {
    interrupted=yes
    [[ -n $warned ]] || printf '%(%F %T)T hvdtrain: warned by SIG%s: the workers are to save and leave\n' -1 "$1"
    warned=yes
    [[ -n $launched ]] || return # nothing may go to the background here: it would change $! before body.sh has read it
    pass_on
    if [[ $1 == TERM && -n $id ]]; then at_time_limit & fi
}
at_time_limit() { # Slurm kills this script in some seconds, whatever the workers do; of other reasons body.sh decides
    local state
    state=$(squeue --noheader --jobs="$id" --format='%T %r' 2>/dev/null)
    [[ $state == 'COMPLETING TimeLimit' && ! -e $run/cancelled ]] || return
    ((${SLURM_RESTART_COUNT:-0} >= most_requeues)) || { scontrol requeue "$id" && say "at its time limit: requeued"; }
}
pass_on() { # what has only just been forked may lose a signal
    if ((SECONDS - began < 2)); then
        { sleep 2 && kill -USR2 "$launched" 2>/dev/null; } &
    else
        kill -USR2 "$launched" 2>/dev/null
    fi
}
trap 'warn USR1' USR1
trap 'warn USR2' USR2
trap 'warn TERM' TERM
