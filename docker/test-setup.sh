#!/usr/bin/env bash
# Install what only the tests need from the system: Prometheus with promtool, an SSH server, iproute2,
# Slurm with munge.
#
#   docker/test-setup.sh
#
# It installs what is missing, on Debian and its kin as root, and leaves none of it running: the tests start their own.
# A second call finds nothing to do. With HVDTRAIN_WHEELHOUSE set it uses no network either.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin # where others than root do not look

main() {
    local missing=() installed
    find_missing
    ((${#missing[@]})) || exit 0
    may_use_apt || die "the tests need ${missing[*]}; as root: apt-get update && apt-get install ${missing[*]}"
    installed=("${missing[@]}")
    say "installing with apt-get: ${installed[*]}"
    apt_install "${installed[@]}"
    leave_off "${installed[@]}"
    find_missing
    ((${#missing[@]} == 0)) || die "apt-get brought no ${missing[*]}"
}

say() { printf 'test-setup: %s\n' "$*" >&2; }

die() {
    printf 'test-setup: error: %s\n' "$*" >&2
    exit 1
}

# Sets missing, by the commands that the tests call: a Prometheus from elsewhere is as good.
find_missing() {
    missing=()
    has prometheus promtool || missing+=(prometheus)
    has sshd ssh ssh-keygen || missing+=(openssh-server)
    has ip tc || missing+=(iproute2)
    has slurmctld slurmd sbatch squeue scontrol || missing+=(slurm-wlm)
    has munged || missing+=(munge)
}

has() { command -v "$@" >/dev/null && (($(command -v "$@" | wc -l) == $#)); }

may_use_apt() { [[ -z ${HVDTRAIN_WHEELHOUSE:-} && $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

# Debian starts the service of a package that it installs, unless this file says no.
apt_install() {
    local log policy=/usr/sbin/policy-rc.d
    log=$(mktemp)
    if [[ ! -e $policy ]]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null; then
        die "apt-get failed, see $log: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
    fi
    rm -f "$log"
}

# What another such file let start is stopped, and nothing starts with the machine.
leave_off() {
    local package service
    for package in "$@"; do
        for service in $(services "$package"); do
            if [[ -e /etc/init.d/$service ]]; then
                invoke-rc.d --quiet "$service" stop >/dev/null 2>&1 || true
                update-rc.d "$service" disable
            fi
        done
    done
}

services() {
    case $1 in
        openssh-server) echo ssh ;;
        slurm-wlm) echo slurmctld slurmd munge ;; # munge comes with it
        *) echo "$1" ;;
    esac
}

main "$@"
