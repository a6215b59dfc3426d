#!/bin/bash
# The begin of a training job: from now on a warning ends nothing. Behind it come begin.sh and body.sh.
# shellcheck disable=SC2034,SC2329

# Whoever warns, and however: the workers understand SIGUSR2, and NCCL may take SIGUSR1.
launched='' began=0 warned='' interrupted=''
warn() {
    interrupted=yes
    [[ -n $warned ]] || printf '%(%F %T)T hvdtrain: warned by SIG%s: the workers are to save and leave\n' -1 "$1"
    warned=yes
    [[ -z $launched ]] || pass_on
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
