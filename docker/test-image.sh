#!/usr/bin/env bash
# Build docker/Dockerfile.cpu without a Docker engine, and train in the image on the digits, with what compose.yaml says:
# as the image's own user and as one that it does not know, on a read-only root.
#
#   docker/test-image.sh
#
# As root, on Debian or its kin; installs podman, runc and debootstrap where they are missing. Where no registry can be
# reached, debootstrap makes the base from this machine's own apt sources, and it stands in for the official one. pip's
# settings here are those of the build. Images and caches stay in HVDTRAIN_CACHE (default ~/.cache/hvdtrain), where the
# build also finds the Horovod of docker/setup.sh, if it is for the same Python, torch and MPI. EPOCHS: default 3.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${HVDTRAIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hvdtrain}
image=localhost/hvdtrain:test
container=hvdtrain-test-$$
PATH=$PATH:/usr/sbin:/sbin

main() {
    (($# == 0)) || die "unknown argument '$1', wanted docker/test-image.sh"
    [[ $(id -u) == 0 ]] || die "building without an engine needs root"
    install_missing
    work=$(mktemp -d "${TMPDIR:-/tmp}/hvdtrain-image.XXXXXX")
    trap clean_up EXIT
    mkdir -p "$cache/image"
    # With a store of its own: vfs needs nothing of the kernel, and a podman that is in use here keeps its driver.
    podman=(podman --root "$cache/image/store" --runroot "$cache/image/run" --storage-driver vfs --cgroup-manager cgroupfs
        --log-level error)
    compose_command

    make_base
    build
    start
    look_inside
    train "its own user"
    train "a user that it does not know" --user 54321:54321
    say "passed in $SECONDS s: $(size) as files, built in $built s"
}

say() { printf 'test-image: %s\n' "$*" >&2; }

die() {
    printf 'test-image: error: %s\n' "$*" >&2
    exit 1
}

# -- tools -----------------------------------------------------------------------------------------------------------

install_missing() {
    local package missing=()
    for package in podman runc debootstrap; do
        command -v "$package" >/dev/null || missing+=("$package")
    done
    if ((${#missing[@]})); then
        command -v apt-get >/dev/null || die "this needs ${missing[*]}"
        say "installing with apt-get: ${missing[*]}"
        if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            "${missing[@]}"; } >"${TMPDIR:-/tmp}/hvdtrain-image-apt.log" 2>&1 </dev/null; then
            die "apt-get failed, see ${TMPDIR:-/tmp}/hvdtrain-image-apt.log"
        fi
    fi
}

# One container for all, for vfs copies the image into each. A machine without an engine often may not raise limits
# either: those are podman's defaults, lowered.
start() {
    runs=$work/runs
    mkdir -m 1777 "$runs"
    "${podman[@]}" run --detach --rm --name "$container" --runtime runc --network host --hostname workers \
        --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --read-only --read-only-tmpfs=false --tmpfs /tmp \
        --shm-size 512m --cap-drop all --security-opt no-new-privileges --volume "$runs:/shared/runs" \
        "$image" sleep infinity >/dev/null || die "no container starts from the image"
    started=yes
}

# inside [OPTION…] WORD…: runs a command there, as the image's own user if no option says otherwise.
inside() {
    local options=()
    while [[ $1 == --* ]]; do
        options+=("$1" "$2")
        shift 2
    done
    "${podman[@]}" exec "${options[@]}" "$container" "$@"
}

# -- the base --------------------------------------------------------------------------------------------------------

make_base() {
    local base dir=$work/base
    base=$(sed -n '/^FROM /{s/^FROM \([^ ]*\).*/\1/p;q}' "$root/docker/Dockerfile.cpu")
    if "${podman[@]}" image exists "docker.io/library/$base"; then
        say "$base is here from an earlier time"
    elif timeout 60 "${podman[@]}" pull --quiet "docker.io/library/$base" &>"$work/pull.log"; then
        say "$base is from the registry"
    else
        base_from_packages "$base"
        tar -C "$dir" -c . | "${podman[@]}" import --quiet - "docker.io/library/$base" >/dev/null
        say "$base is made by debootstrap after $SECONDS s, for no registry answers: $(tail -n1 "$work/pull.log" | sed "s/.*: //")"
    fi
}

# Fills dir with the release that a tag such as debian:bookworm-slim names.
base_from_packages() {
    local release=${1#debian:} sources mirror
    release=${release%-slim}
    # shellcheck disable=SC2016 # apt's variables
    sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        grep -E " $release(-updates|-security)? " | sort -u) || die "no registry, and apt's sources know no $release"
    mirror=$(awk -v release="$release" '$3 == release {print $2; exit}' <<<"$sources")
    if ! debootstrap --variant=minbase "$release" "$dir" "$mirror" >"$work/debootstrap.log" 2>&1; then
        tail -n 5 "$work/debootstrap.log" >&2
        die "debootstrap made no $release"
    fi
    # As in the official image: no documentation, no packages kept.
    printf '%s\n' "$sources" >"$dir/etc/apt/sources.list"
    printf 'path-exclude /usr/share/%s/*\n' doc man locale >"$dir/etc/dpkg/dpkg.cfg.d/slim"
    {
        apt-config dump | grep -E '^Acquire::(Check-|Retries|http|https)' || true
        echo 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };'
    } >"$dir/etc/apt/apt.conf.d/99slim"
    rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/* "$dir"/usr/share/{doc,man,locale}/*
}

# -- the image -------------------------------------------------------------------------------------------------------

build() {
    local start=$SECONDS settings=()
    mapfile -t settings < <(pip_settings)
    say "building: $work/build.log"
    if ! "${podman[@]}" build --pull=never --network host --isolation chroot --file "$root/docker/Dockerfile.cpu" \
        --tag "$image" "${settings[@]}" --volume "$cache:/run/host/cache" --build-arg HVDTRAIN_CACHE=/run/host/cache \
        --build-arg REVISION="$(git -C "$root" rev-parse HEAD 2>/dev/null || true)" "$root" \
        >"$work/build.log" 2>&1 </dev/null; then
        tail -n 40 "$work/build.log" >&2
        die "the image did not build: see above"
    fi
    grep '^setup: ' "$work/build.log" >&2 || true
    built=$((SECONDS - start))
    say "built in $built s: $(size) as files"
}

# Options of the build, one a line: pip's settings of this machine, and what lies in its own folders, which the build
# sees below /run/host. Where there are none, PyPI and the Dockerfile's own index stand.
pip_settings() {
    python3 - "$work/pip.conf" <<'END_OF_PYTHON'
import ast, subprocess, sys
from pathlib import Path

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
settings, mounts = {}, {}
for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):  # the environment wins
    key, _, value = line.partition("=")
    section, _, name = key.rpartition(".")
    words = ast.literal_eval(value).split()
    for place, word in enumerate(words):
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            folder = path.parent if path.is_file() or word.startswith("file:") else path  # an index points to ../../files
            seen = mounts.setdefault(folder, f"/run/host/{len(mounts)}")
            words[place] = word.replace(str(path), f"{seen}/{path.relative_to(folder)}")
    settings.setdefault("global" if section == ":env:" else section, {})[name] = " ".join(words)
with open(sys.argv[1], "w") as file:
    for section, values in settings.items():
        print(f"[{section}]", *(f"{name} = {value}" for name, value in values.items()), sep="\n", file=file)
if settings:
    print(f"--secret=id=pip,src={sys.argv[1]}", "--build-arg=PIP_EXTRA_INDEX_URL=", sep="\n")
for folder, seen in mounts.items():
    print(f"--volume={folder}:{seen}:ro")
END_OF_PYTHON
}

size() { "${podman[@]}" image inspect --format '{{.Size}}' "$image" | awk '{printf "%.2f GB", $1 / 1e9}'; }

look_inside() {
    local user unreadable
    user=$(inside id -u)
    [[ $user != 0 ]] || die "the image's user is root"
    unreadable=$(inside --user 54321:54321 find /opt /usr /shared -xdev ! -readable -print -quit)
    [[ -z $unreadable ]] || die "not everybody can read $unreadable"
    if inside python -c 'import pytest' 2>/dev/null; then
        die "the image has the test tools"
    fi
    inside hvdtrain --version >/dev/null || die "hvdtrain does not start"
    [[ $(inside bash -c 'type -P hvdtrain mpirun') == /opt/hvdtrain/bin/hvdtrain$'\n'/usr/bin/mpirun ]] ||
        die "hvdtrain or mpirun is not on PATH"
    say "its user is $user, everybody can read it, no test tools in it"
}

# -- training --------------------------------------------------------------------------------------------------------

# Sets command to that of the workers in compose.yaml, as compose reads it.
compose_command() {
    mapfile -d '' command < <(python3 - "$root/docker/compose.yaml" <<'END_OF_PYTHON'
import sys, yaml
with open(sys.argv[1]) as file:
    words = yaml.safe_load(file)["services"]["workers"]["command"]
print(*(word.replace("$$", "$") for word in words), sep="\0", end="\0")
END_OF_PYTHON
    )
    ((${#command[@]} == 3)) || die "compose.yaml has no command for its workers, or python3 no yaml: make setup"
}

# train WHO OPTION…: the demo of compose.yaml; two workers have to be there for Prometheus, and to learn.
train() {
    local who=$1 start=$SECONDS log=$work/train.log found="" top1
    shift
    rm -rf "${runs:?}"/* "$runs/.targets"
    inside --env EPOCHS="${EPOCHS:-3}" "$@" "${command[@]}" >"$log" 2>&1 &
    running=$!
    while kill -0 "$running" 2>/dev/null; do
        [[ -n $found ]] || found=$(scrape "$runs")
        sleep 0.2
    done
    if ! wait "$running"; then
        tail -n 30 "$log" >&2
        die "as $who the demo failed: see above"
    fi
    top1=$(sed -n 's/^top-1  *\([0-9.]*\) %.*/\1/p' "$log")
    [[ -n $top1 && ${top1%.*} -ge 50 ]] || die "as $who: got top-1 '$top1', wanted 50 or more: $(tail -n 5 "$log")"
    [[ $found =~ ^workers:[0-9]+\ workers:[0-9]+$ ]] || die "as $who: got metrics of '$found', wanted both workers'"
    say "as $who: top-1 $top1 % after ${EPOCHS:-3} epochs, metrics of both workers seen, $((SECONDS - start)) s"
}

# The addresses in the targets file in the folder, readable for everybody, if there is one and hvdtrain's metrics are
# there; the container has this machine's network.
scrape() {
    python3 - "$1" <<'END_OF_PYTHON'
import http.client, json, sys
from pathlib import Path
from urllib.request import urlopen

seen = []
try:
    for path in Path(sys.argv[1]).glob(".targets/*.json"):
        if path.stat().st_mode & 0o4 and path.parent.stat().st_mode & 0o5 == 0o5:
            for group in json.loads(path.read_text()):
                (target,) = group["targets"]
                with urlopen(f"http://127.0.0.1:{target.partition(':')[2]}/metrics", timeout=2) as answer:
                    if b"\nhvdtrain_" in answer.read():
                        seen.append(target)
except (OSError, http.client.HTTPException):
    sys.exit()  # not yet, or no more
print(*seen)
END_OF_PYTHON
}

clean_up() {
    if [[ -n ${started:-} ]]; then
        "${podman[@]}" rm --force --time 0 "$container" >/dev/null 2>&1 || true
    fi
    rm -rf "$work"
}

main "$@"
