#!/usr/bin/env bash
# Runs the README's two commands in a fresh Debian container that has python3 and a C compiler and nothing else of ours.
#   .ci/clean_machine.sh [CACHE_DIR]    the base image is kept in CACHE_DIR (default: /var/cache/edgebit-ci)
# Needs root, mmdebstrap and docker.io; starts its own Docker engine on a socket of its own and stops it by its pid.
# Exit code 77: it could not run here, and why is printed.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
base=${1:-/var/cache/edgebit-ci}/clean-bookworm.tar
. "$checkout/.ci/docker_engine.sh"

cannot() {
    echo "skipped: clean container: $1"
    exit 77
}

[ "$(id -u)" = 0 ] || cannot "not root"
debian_base "$base" ca-certificates,python3,python3-venv,gcc,libc6-dev,git

work=$(mktemp -d)
trap 'stop_docker; rm -rf "$work"' EXIT
start_docker "$work"
docker import "$base" edgebit-clean:bookworm >/dev/null
git -C "$checkout" archive --format=tar HEAD >"$work/edgebit.tar"

# The container reaches the package index the way this machine does.
settings=()
for file in /etc/pip.conf "${PIP_CERT:-}"; do
    [ -n "$file" ] && [ -f "$file" ] && settings+=(-v "$file:$file:ro")
done
while IFS='=' read -r name _; do
    settings+=(-e "$name")
done < <(env | grep '^PIP_' || true)

docker run --rm --network host "${settings[@]}" -v "$work/edgebit.tar:/edgebit.tar:ro" edgebit-clean:bookworm \
    sh -ec 'useradd -m maker; cd /home/maker
            su maker -c "set -e; tar xf /edgebit.tar; git init -q .; git add -A; ./setup.sh demo; ./setup.sh test"'
echo "clean container: both README commands passed"
