#!/bin/sh
# Sets edgebit up in .venv beside this file and does one thing with it:
#   ./setup.sh demo    the whole way on this machine with the model that ships: build, broker, daemon, question, answer
#   ./setup.sh test    every check that needs no other machine: lint, types, unit tests on real brokers and servers
# More arguments go to `edgebit demo` or to pytest. Needs python3 (3.11 or later) with venv, and a C compiler.
set -eu

cd "$(dirname "$0")"

missing() {
    echo "setup.sh: $1 is missing. Install it: $2" >&2
    exit 1
}

task=${1:-}
case $task in
demo | test) shift ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

python=${PYTHON:-python3}
command -v "$python" >/dev/null || missing "python3" "sudo apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "Python 3.11 (this is $("$python" -V))" "a newer Debian, or PYTHON=/path/to/python3.11 ./setup.sh $task"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing "Python's venv module" "sudo apt-get install python3-venv"
command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
    missing "a C compiler" "sudo apt-get install gcc libc6-dev"

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "setup.sh: installing edgebit[$task] into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check ".[$task]"

if [ "$task" = demo ]; then
    exec .venv/bin/edgebit demo "$@"
fi

# Tests meet the installed edgebit, not the folder they are called from; cmake has no make to count on.
PATH="$PWD/.venv/bin:$PATH" PYTHONSAFEPATH=1 CMAKE_GENERATOR=Ninja
export PATH PYTHONSAFEPATH CMAKE_GENERATOR
ruff check .
ruff format --check .
mypy
git ls-files -z 'kernels/*.c' 'kernels/*.h' 'tests/*.c' 'examples/*.[ch]pp' 'examples/*.h' | xargs -0 clang-format --dry-run --Werror
# Most tests wait for brokers and daemons: three at a time. A file's tests stay together, with what they share.
pytest --numprocesses 3 --dist loadfile -m "not slow and not reference and not device" "$@"
