#!/bin/bash
# A scaling job, behind begin.sh: short runs on more and more of its nodes, one after the other, and a report on all.
# shellcheck disable=SC2154

reported=()
for count in "${nodes[@]}"; do
    if [[ ${launcher[0]} == srun ]]; then
        where=(--nodes="$count" --ntasks=$((count * workers_per_node)) --ntasks-per-node="$workers_per_node")
    else
        where=(-np $((count * workers_per_node)) --map-by "ppr:$workers_per_node:node")
    fi
    say "$count nodes of $workers_per_node workers"
    "${launcher[@]}" "${where[@]}" "${container[@]}" "${worker[@]}" --run.name="$name-$count" || {
        code=$?
        say "the run on $count nodes has failed (exit code $code)"
        printf '%d %s\n' "$code" "the run on $count nodes has failed" >"$run/outcome"
        exit "$code"
    }
    reported+=("$runs/$name-$count")
done
hvdtrain report "${reported[@]}" --html "$run/proof.html" || exit
printf '0 %s\n' "compared ${#nodes[@]} runs, see $run/proof.html" >"$run/outcome"
say "the proof of scaling is in $run/proof.html"
