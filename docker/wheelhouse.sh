#!/usr/bin/env bash
# Collect in DIR all that docker/setup.sh installs, for a machine without a network:
#
#   docker/wheelhouse.sh DIR                        here, after make setup
#   HVDTRAIN_WHEELHOUSE=DIR docker/setup.sh         there; it needs Python with venv, and MPI or nothing
#
# DIR also gets Horovod as source, and as built here; the built one is taken where torch, Python and MPI are the same,
# elsewhere it is built again, which needs g++, make and Python.h. By default for the Python and torch of this machine's
# .venv; for another target:
#
#   WHEELHOUSE_PYTHON=3.12     its Python
#   WHEELHOUSE_CUDA=13         its CUDA: torch for CUDA, and DALI for that
#   WHEELHOUSE_TORCH=none      it has torch and torchvision already
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${HVDTRAIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hvdtrain}
python=$root/.venv/bin/python

main() {
    [[ -n ${1:-} ]] || die "where to? make wheelhouse DIR=folder"
    [[ -x $python ]] || die "there is no .venv, whose pip this uses; run make setup first"
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    version=${WHEELHOUSE_PYTHON:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
    cuda=${WHEELHOUSE_CUDA:-}
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT

    say "packages for Python $version${cuda:+ and CUDA $cuda}"
    pins >"$work/pins.txt"
    wheels --no-deps -r "$work/pins.txt"
    if [[ ${WHEELHOUSE_TORCH:-} != none ]]; then
        collect_torch
    fi
    collect_horovod
    say "$(du -sh "$dir" | cut -f1) in $dir; there: HVDTRAIN_WHEELHOUSE=$dir make setup"
}

say() { printf 'wheelhouse: %s\n' "$*" >&2; }

die() {
    printf 'wheelhouse: error: %s\n' "$*" >&2
    exit 1
}

# The lines of constraints.txt for the target's Python, less torch and torchvision, Horovod and the other CUDA's DALI.
pins() {
    "$python" - "$root/constraints.txt" "$version" "${cuda%%.*}" <<'END'
import re, sys
from packaging.requirements import Requirement
path, python, cuda = sys.argv[1:]
target = {"python_version": python, "python_full_version": python + ".0"}
other = "12" if cuda == "13" else "13"
skip = {"torch", "torchvision", "horovod", f"nvidia-dali-cuda{other}0"}
for line in open(path).read().splitlines():
    if line and not line.startswith("#"):
        pin = Requirement(line)
        for_target = pin.marker is None or pin.marker.evaluate(target)
        if for_target and pin.name not in skip and not pin.name.endswith(f"-cu{other}"):
            print(f"{pin.name}{pin.specifier}")
END
}

wheels() {
    local glibc platforms=(--platform "linux_$(uname -m)" --platform "manylinux2014_$(uname -m)")
    for glibc in 28 27 26 24 18 17 12 5; do
        platforms+=(--platform "manylinux_2_${glibc}_$(uname -m)")
    done
    download --only-binary :all: --python-version "$version" "${platforms[@]}" "$@" ||
        die "pip could not download what it names above"
}

download() { "$python" -m pip download -qq --disable-pip-version-check --no-input -d "$dir" "$@"; }

pinned() { sed -n "s/^$1==\([^ ;]*\).*/\1/p" "$root/constraints.txt"; }

collect_torch() {
    local torch torchvision index=()
    torch=$(pinned torch)
    torchvision=$(pinned torchvision)
    if [[ -n ${HVDTRAIN_TORCH_INDEX:-} ]]; then
        index=(--index-url "$HVDTRAIN_TORCH_INDEX")
    fi
    say "torch $torch and torchvision $torchvision"
    if [[ -n $cuda ]]; then
        wheels "${index[@]}" -c "$work/pins.txt" "torch==$torch,!=$torch+cpu"
    elif ! (wheels "${index[@]}" -c "$work/pins.txt" "torch==$torch+cpu") 2>/dev/null; then
        say "pip's indexes hold no torch $torch+cpu: taking the CUDA build, several GB"
        wheels "${index[@]}" -c "$work/pins.txt" "torch==$torch"
    fi
    if [[ -n $cuda ]] || ! (wheels "${index[@]}" --no-deps "torchvision==$torchvision+cpu") 2>/dev/null; then
        wheels "${index[@]}" --no-deps "torchvision==$torchvision"
    fi
}

collect_horovod() {
    local horovod entry
    horovod=$(pinned horovod)
    download --no-deps --no-build-isolation --no-binary horovod "horovod==$horovod" ||
        die "pip could not download Horovod $horovod: see above"
    mkdir -p "$dir/horovod"
    for entry in "$cache/horovod/$horovod-torch"*"-py$version-"*; do
        if [[ -d $entry ]]; then
            say "Horovod as built: $(<"$entry/key")"
            cp -r "$entry" "$dir/horovod/"
        fi
    done
}

main "$@"
