#!/bin/bash
# A bench job, behind begin.sh: the gradients' sum on the first node, then training on more and more nodes in rounds.
# shellcheck disable=SC2154

failed=0
if ((${#allreduce[@]})); then
    say "the sum of gradients on one node"
    "${allreduce[@]}" || {
        failed=$?
        say "bench allreduce has failed (exit code $failed)"
    }
fi
say "training on $workers workers, $workers_per_node on each node"
"${scaling[@]}" --workers "$workers" || {
    code=$?
    printf '%d %s\n' "$code" "bench scaling has failed" >"$run/outcome"
    exit "$code"
}
hvdtrain report --scaling "$run/scaling.json" --html "$run/proof.html" || exit
printf '%d %s\n' "$failed" "measured, see $run/proof.html and the .json beside it" >"$run/outcome"
say "the proof of scaling is in $run/proof.html"
exit "$failed"
