#!/usr/bin/env bash
# Sourced by the checks that need containers: a Docker engine of their own, and Debian to import into it.
# The caller has a function cannot REASON, which ends it with exit code 77.

# debian_base FILE PACKAGES: a tar of Debian 12 with PACKAGES (comma-separated), made of Debian's packages once.
debian_base() {
    command -v mmdebstrap >/dev/null || cannot "no mmdebstrap"
    [ -f "$1" ] && return
    mkdir -p "$(dirname "$1")"
    rm -rf "$1" "$1.part"
    mmdebstrap --quiet --format=tar --variant=minbase --include="$2" bookworm "$1.part" || cannot "mmdebstrap failed"
    mv "$1.part" "$1"
}

# start_docker FOLDER: sets DOCKER_HOST to an engine whose data lie in FOLDER. stop_docker ends it, by its pid.
start_docker() {
    local tool
    for tool in dockerd docker; do
        command -v "$tool" >/dev/null || cannot "no $tool"
    done
    docker_folder=$1
    export DOCKER_HOST=unix://$docker_folder/docker.sock
    dockerd --data-root "$docker_folder/data" --exec-root "$docker_folder/exec" --pidfile "$docker_folder/dockerd.pid" \
        -H "$DOCKER_HOST" >"$docker_folder/dockerd.log" 2>&1 &
    docker_pid=$!
    for _ in $(seq 60); do
        docker version >/dev/null 2>&1 && return
        kill -0 "$docker_pid" 2>/dev/null || break
        sleep 1
    done
    tail -5 "$docker_folder/dockerd.log"
    cannot "the Docker engine does not start here"
}

stop_docker() {
    [ -n "${docker_pid:-}" ] || return 0
    kill "$docker_pid" 2>/dev/null || true
    wait "$docker_pid" 2>/dev/null || true
    umount "$docker_folder"/exec/netns/* 2>/dev/null || true
    docker_pid=
}
