#!/usr/bin/env bash
# Builds the cross images for real and compiles in them.
#   .ci/cross_images.sh docker [CACHE_DIR]    as root; Debian, which no registry gives here, is kept in CACHE_DIR as a tar
#   .ci/cross_images.sh podman [CACHE_DIR]    as an ordinary user, after docker: the bytes must be the same
# Needs root, mmdebstrap, docker.io and what ./setup.sh test installs; EDGEBIT_PYTHON names another Python with edgebit.
# Exit code 77: it could not run here, and why is printed.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
engine=${1:?write: cross_images.sh docker|podman}
base=${2:-/var/cache/edgebit-ci}/cross-base-bookworm.tar
python=${EDGEBIT_PYTHON:-$checkout/.venv/bin/python}
. "$checkout/.ci/docker_engine.sh"

cannot() {
    echo "skipped: cross images: $1"
    exit 77
}

[ "$(id -u)" = 0 ] || cannot "not root"
[ -x "$python" ] || cannot "no $python: ./setup.sh test makes it"
debian_base "$base" ca-certificates

work=$(mktemp -d)
user=
finish() {
    stop_docker
    if [ -n "$user" ]; then
        # Podman leaves a process that holds the user's namespace, and no user goes away before its processes.
        if pause=$(cat "/home/$user/run/libpod/tmp/pause.pid" 2>/dev/null); then
            kill "$pause" 2>/dev/null && tail --pid="$pause" -f /dev/null
        fi
        userdel --remove "$user" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
export PYTHONSAFEPATH=1
edgebit() { "$python" -m edgebit "$@"; }

with_docker() {
    start_docker "$work"
    docker import "$base" debian:bookworm >/dev/null
    # A mirror that has moved on is no fault of the project; the pins that ship are then for `edgebit cross pin` to write anew.
    if edgebit cross pin --dry-run --base debian:bookworm --network host | grep -E '^(bookworm|bullseye) '; then
        echo "Debian has other packages than cross/images.toml pins: this run takes today's"
        edgebit cross pin --base debian:bookworm --network host >/dev/null
    fi
    printf 'description = "Alpine Linux"\ntriple = "aarch64-linux-musl"\n' >"$work/alpine.toml"
    for target in rpi "$work/alpine.toml"; do
        edgebit cross build "$target" --base debian:bookworm --network host >"$work/build.log" 2>&1 ||
            { cat "$work/build.log"; exit 1; }
        tail -n 1 "$work/build.log"
    done
    edgebit cross list
    "$python" -m pytest -c "$checkout/pyproject.toml" --rootdir "$checkout" -p no:cacheprovider --durations=5 \
        "$checkout/tests/cross/test_image_builds.py"
}

# An ordinary user without any right; root's Python may be out of such a user's reach, its packages are not.
with_podman() {
    command -v podman >/dev/null || cannot "no podman here"
    site=$("$python" - <<'END'
import click, edgebit, pathlib
print(":".join(dict.fromkeys(str(pathlib.Path(module.__file__).parent.parent) for module in (edgebit, click))))
END
    )
    user=edgebit-$$
    useradd --create-home "$user"
    chmod 755 "$work"
    ln "$base" "$work/base.tar" 2>/dev/null || cp "$base" "$work/base.tar"
    if ! su "$user" -c "PYTHONPATH=$site /usr/bin/python3 -c 'import edgebit.cli.build, edgebit.cli.cross'"; then
        cannot "an ordinary user has no Python here that reads $site"
    fi
    cat >"$work/as_user.sh" <<END
set -eu
unset DOCKER_HOST XDG_CACHE_HOME
export HOME=/home/$user XDG_RUNTIME_DIR=/home/$user/run PYTHONPATH=$site EDGEBIT_CONTAINER_ENGINE=podman BUILDAH_LAYERS=false
mkdir -p -m 700 \$XDG_RUNTIME_DIR \$HOME/.config/containers
# A container without systemd inside another: no cgroups to manage, no limits to raise.
printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n' >\$HOME/.config/containers/containers.conf
printf '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n' >>\$HOME/.config/containers/containers.conf
printf '[storage]\ndriver = "overlay"\n' >\$HOME/.config/containers/storage.conf
cd \$HOME
podman import --quiet $work/base.tar debian:bookworm
/usr/bin/python3 -m edgebit cross build rpi --base debian:bookworm --network host
/usr/bin/python3 -m edgebit cross check rpi --builder docker --json >check.json
END
    su "$user" -c "sh $work/as_user.sh" >"$work/podman.log" 2>&1 || { tail -n 40 "$work/podman.log"; exit 1; }
    "$python" - "/home/$user/check.json" <<'END'
import json, sys
from edgebit.resources import cache_dir
made = json.load(open(sys.argv[1]))["builders"][0]
kept = json.loads((cache_dir() / "cross" / f"{made['toolchain_id']}-docker" / "build.json").read_text())
assert made["builds"] == [kept, kept], (made, kept)
print("podman, as an ordinary user: the same toolchain id and the same bytes as docker")
END
}

case $engine in
docker | podman) "with_$engine" ;;
*) echo "cross_images.sh: there is docker, and there is podman" >&2; exit 2 ;;
esac
