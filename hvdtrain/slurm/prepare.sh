#!/bin/bash
# A job that prepares data, behind begin.sh. What was interrupted goes on when Slurm starts it again.
# shellcheck disable=SC2154

"${launcher[@]}" "${prepare[@]}" || {
    code=$?
    printf '%d %s\n' "$code" "the data are not prepared" >"$run/outcome"
    exit "$code"
}
"${launcher[@]}" "${verify[@]}" || say "some images are left out in training, see above"
printf '0 %s\n' "prepared" >"$run/outcome"
