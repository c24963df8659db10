#!/usr/bin/env bash
# Runs the README's two commands in a fresh Debian container that has python3 and a C compiler and nothing else of ours.
#   .ci/clean_machine.sh [CACHE_DIR]    the base image is kept in CACHE_DIR (default: /var/cache/edgebit-ci)
# Needs root, mmdebstrap and docker.io; starts its own Docker engine on a socket of its own and stops it by its pid.
# Exit code 77: it could not run here, and why is printed.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
cache=${1:-/var/cache/edgebit-ci}
suite=bookworm
base=$cache/clean-$suite.tar

cannot() {
    echo "skipped: clean container: $1"
    exit 77
}

[ "$(id -u)" = 0 ] || cannot "not root"
for tool in mmdebstrap dockerd docker; do
    command -v "$tool" >/dev/null || cannot "no $tool"
done

mkdir -p "$cache"
if [ ! -f "$base" ]; then
    rm -rf "$base" "$base.part"
    mmdebstrap --quiet --format=tar --variant=minbase --include=ca-certificates,python3,python3-venv,gcc,libc6-dev,git \
        "$suite" "$base.part" || cannot "mmdebstrap failed"
    mv "$base.part" "$base"
fi

work=$(mktemp -d)
socket=unix://$work/docker.sock
dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" -H "$socket" \
    >"$work/dockerd.log" 2>&1 &
engine=$!
stop() {
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    umount "$work"/exec/netns/* 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT
for _ in $(seq 60); do
    docker -H "$socket" version >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || { tail -5 "$work/dockerd.log"; cannot "the Docker engine does not start here"; }
    sleep 1
done

docker -H "$socket" import "$base" edgebit-clean:"$suite" >/dev/null
git -C "$checkout" archive --format=tar HEAD >"$work/edgebit.tar"

# The container reaches the package index the way this machine does.
settings=()
for file in /etc/pip.conf "${PIP_CERT:-}"; do
    [ -n "$file" ] && [ -f "$file" ] && settings+=(-v "$file:$file:ro")
done
while IFS='=' read -r name _; do
    settings+=(-e "$name")
done < <(env | grep '^PIP_' || true)

docker -H "$socket" run --rm --network host "${settings[@]}" -v "$work/edgebit.tar:/edgebit.tar:ro" edgebit-clean:"$suite" \
    sh -ec 'useradd -m maker; cd /home/maker
            su maker -c "set -e; tar xf /edgebit.tar; git init -q .; git add -A; ./setup.sh demo; ./setup.sh test"'
echo "clean container: both README commands passed"
