#!/bin/bash
# What every job of a training run does, behind begin.sh: start the workers, pass warnings on, and decide at their end
# whether the job has to run again.
# shellcheck disable=SC2154,SC2034

[[ -z $task ]] || worker+=(--run.name="$name-$task" --seed="$((seed + task))")
say "job ${id:-of this machine} on ${SLURM_JOB_NODELIST:-$HOSTNAME}, start $((${SLURM_RESTART_COUNT:-0} + 1)), run $run"

# How far the run's record has come; what never begins, whatever the reason, is not begun for ever.
recorded() { stat --format='%s %Y' "$run/events.jsonl" 2>/dev/null; }
before=$(recorded)
if [[ -n $warned ]]; then
    echo "75 warned before the workers had begun" >"$run/outcome"
    launched=''
else
    "${launcher[@]}" "${worker[@]}" &
    launched=$! began=$SECONDS
    [[ -z $warned ]] || pass_on # it came between the two lines above
fi

# A trap ends `wait` early, and one of something that has ended tells its code again.
code=75
while [[ -n $launched ]]; do
    interrupted=''
    wait "$launched"
    code=$?
    [[ -n $interrupted ]] || break
done

# How the run itself says that it ended, "CODE MESSAGE"; a shared file system may show it a moment late.
outcome='' message=''
for _ in {1..10}; do
    if [[ -s $run/outcome ]]; then
        read -r outcome message <"$run/outcome"
        break
    fi
    [[ $code != 0 ]] || break
    sleep 0.5
done

case $outcome in
    0) say "the run is over: $message" && exit 0 ;;
    75 | 6 | 7) say "the run is to go on: $message (exit code $outcome)" ;;
    [1-9] | [1-9][0-9] | 1[0-9][0-9] | 2[0-4][0-9] | 25[0-5])
        say "the run has failed: $message (exit code $outcome)"
        exit "$outcome"
        ;;
    *)
        case $code in
            [23458]) say "the workers refused to start (exit code $code)" && exit "$code" ;;
            12[67]) say "${launcher[0]} cannot be started" && exit 3 ;;
        esac
        outcome=1
        say "the workers ended without reporting an outcome (exit code $code of ${launcher[0]})"
        if [[ $(recorded) == "$before" ]]; then
            printf x >>"$run/.not-begun"
            if (($(stat --format=%s "$run/.not-begun") >= 3)); then
                say "not requeued: it ended three times before it had begun"
                exit 1
            fi
        fi
        ;;
esac

[[ -n $id ]] || exit "$outcome"
if [[ -e $run/cancelled ]]; then
    say "not requeued: the job is cancelled"
    exit "$outcome"
fi
if ((${SLURM_RESTART_COUNT:-0} >= most_requeues)); then
    say "not requeued: it was $most_requeues times, job.max_requeues → hvdtrain resume $run"
    exit "$outcome"
fi
# While the job ends at Slurm's will, Slurm has decided what becomes of it: cancelled, or already requeued. Only what the
# time limit ends would stay so. A Slurm that does not answer is asked to requeue all the same.
ours_to_requeue() {
    local state
    state=$(squeue --noheader --jobs="$id" --format='%T %r' 2>/dev/null | head -n1)
    [[ -z $state || $state == RUNNING\ * || $state == 'COMPLETING TimeLimit' ]] && return
    say "not requeued from here: Slurm is ending the job (${state% *})"
    exit "$outcome"
}
ended=''
trap 'ended=yes' TERM
trap '' USR1 USR2
for pause in 1 5 15 30 60 0; do
    ours_to_requeue
    if scontrol requeue "$id"; then
        say "requeued"
        # An end of this script's own would count as the job's.
        until [[ -n $ended ]]; do sleep 1; done
        exit 75
    fi
    sleep "$pause"
done
say "requeueing failed: scontrol requeue $id"
exit "$outcome"
