#!/usr/bin/env bash
# Builds the container image of a bundle in both ways that `edgebit fleet export oci` offers, runs them, and asks them
# over MQTT: from the Dockerfile with Docker, and without an engine, on a base that skopeo copied.
#   .ci/container_image.sh [CACHE_DIR]    the base is kept in CACHE_DIR (default: /var/cache/edgebit-ci)
# Needs root, mmdebstrap, docker.io, skopeo, umoci, runc and mosquitto; edgebit is the one of .venv, or EDGEBIT names it.
# Exit code 77: it could not run here, and why is printed.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
cache=${1:-/var/cache/edgebit-ci}
base=$cache/python-bookworm.tar
edgebit=${EDGEBIT:-$checkout/.venv/bin/edgebit}

cannot() {
    echo "skipped: container image: $1"
    exit 77
}

# shellcheck source=.ci/docker_engine.sh
. "$checkout/.ci/docker_engine.sh"

[ "$(id -u)" = 0 ] || cannot "not root"
for tool in skopeo umoci runc mosquitto; do
    command -v "$tool" >/dev/null || cannot "no $tool"
done
debian_base "$base" ca-certificates,python3

work=$(mktemp -d)
stop() {
    [ $? = 0 ] || cat "$work"/*.log 2>/dev/null || true
    runc delete --force edgebit-check 2>/dev/null || true
    [ -z "${broker:-}" ] || kill "$broker" 2>/dev/null || true
    stop_docker
    rm -rf "$work"
}
trap stop EXIT
start_docker "$work"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$port" >"$work/mosquitto.conf"
mosquitto -c "$work/mosquitto.conf" 2>"$work/mosquitto.log" &
broker=$!
mkdir "$work/settings"
printf '[mqtt]\nurl = "mqtt://127.0.0.1:%s"\n' "$port" >"$work/settings/edgebitd.toml"
chmod 755 "$work" "$work/settings"

# asks DEVICE: it must answer, and so must what Kubernetes' readiness probe runs, called as `$@ COMMAND...`
answers() {
    local device=$1
    shift
    for _ in $(seq 20); do
        "$edgebit" ask --broker "mqtt://127.0.0.1:$port" --device "$device" --timeout 10 "who are you?" && break
        sleep 1
    done
    "$@" python3 /opt/edgebit/edgebitd.pyz ping --config /etc/edgebit/edgebitd.toml --device-name "$device"
    if "$@" python3 /opt/edgebit/edgebitd.pyz ping --config /etc/edgebit/edgebitd.toml --device-name nobody \
        --timeout-s 2; then
        echo "a device that is not there was found ready"
        exit 1
    fi
}

run_in_docker() { # NAME IMAGE: as Kubernetes would: no rights, nothing to write to but the state
    docker run -d --name "$1" --network host --read-only --cap-drop ALL --security-opt no-new-privileges \
        -v "$work/settings:/etc/edgebit:ro" "$2" --device-name "$1" >/dev/null
    answers "$1" docker exec "$1"
    [ "$(docker exec "$1" id -u)" = 10001 ]
    docker rm -f "$1" >/dev/null
}

model=$("$(dirname "$edgebit")/python" -c 'from edgebit.resources import assistant_model_dir; print(assistant_model_dir())')
"$edgebit" build "$model" --target host --out "$work/demo.bundle"

echo "-- from the Dockerfile"
docker import "$base" edgebit-base >/dev/null
"$edgebit" fleet export oci "$work/demo.bundle" --base-name edgebit-base --out "$work/image"
docker build -q --network none -t edgebit:check "$work/image"
run_in_docker from-dockerfile edgebit:check

echo "-- without an engine"
docker save -o "$work/base.tar" edgebit-base
skopeo copy -q "docker-archive:$work/base.tar" "oci:$work/base:python"
for out in one two; do
    "$edgebit" fleet export oci "$work/demo.bundle" --base "$work/base" --out "$work/$out"
done
image=$(ls "$work"/one/*.oci.tar)
cmp "$image" "$work/two/$(basename "$image")"
skopeo inspect "oci-archive:$image" | grep '"Architecture"'
docker load -q -i "$image"
run_in_docker from-archive "$(docker images --format '{{.Repository}}:{{.Tag}}' | grep '^edgebit:[0-9a-f]\{16\}$')"

echo "-- by an OCI runtime alone"
skopeo copy -q "oci-archive:$image" "oci:$work/layout:check"
mkdir "$work/state"
chown 10001 "$work/state"
umoci unpack --image "$work/layout:check" "$work/container"
python3 - "$work" <<'PYTHON'
import json, sys
path = f"{sys.argv[1]}/container/config.json"
spec = json.load(open(path))
spec["process"]["terminal"] = False
spec["process"]["args"] += ["--device-name", "from-runc"]
spec["root"]["readonly"] = True
spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "network"]  # the host's loopback
spec["mounts"] = [m for m in spec["mounts"] if m["type"] != "sysfs"]  # which may not be mounted without one's own network
spec["mounts"] = [m for m in spec["mounts"] if m["destination"] != "/var/lib/edgebit"]
for place, source, way in (("/etc/edgebit", "settings", "ro"), ("/var/lib/edgebit", "state", "rw")):
    spec["mounts"].append({"destination": place, "type": "bind", "source": f"{sys.argv[1]}/{source}",
                           "options": ["bind", way]})
json.dump(spec, open(path, "w"))
PYTHON
runc run --detach --bundle "$work/container" edgebit-check >"$work/runc.log" 2>&1 </dev/null
answers from-runc runc exec edgebit-check
echo "three images answered"
