#!/bin/sh
# The Debian packages of the Linux cross images; runs as root inside an image's build, and knows what each image holds.
#   packages.sh install TRIPLE   a compiler for TRIPLE, and the libc that its programs may rely on, in /opt/libc
#   packages.sh versions         "SUITE PACKAGE VERSION" for all that any image installs: what images.toml pins
# MIRROR is Debian's archive, LIBC_SUITE the suite whose glibc is the floor. Any version but the pinned one is refused.
set -eu

here=$(dirname "$0")
suite=bookworm
: "${MIRROR:=http://deb.debian.org/debian}" "${LIBC_SUITE:?}"
tools="cmake ninja-build"
export DEBIAN_FRONTEND=noninteractive

compiler_of() { # TRIPLE's: the system's own where it is this system's, else a cross compiler
    case ${1%%-*} in
    "$(uname -m)") echo "gcc libc6-dev" ;;
    aarch64) echo "gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
    *) fail "no compiler for $1 in $suite on $(uname -m)" ;;
    esac
}

debian_arch() {
    case ${1%%-*} in
    aarch64) echo arm64 ;;
    x86_64) echo amd64 ;;
    *) fail "no Debian architecture is known for $1" ;;
    esac
}

# What is unpacked, not installed: a libc beside the compiler's own.
libc_of() {
    arch=$(debian_arch "$1")
    case $1 in
    *-gnu) echo "libc6:$arch libc6-dev:$arch libgcc-s1:$arch linux-libc-dev:$arch" ;;
    *-musl) echo "musl:$arch musl-dev:$arch linux-libc-dev:$arch" ;;
    *) fail "no libc is known for $1" ;;
    esac
}

libc_suite_of() {
    case $1 in
    *-gnu) echo "$LIBC_SUITE" ;;
    *) echo "$suite" ;;
    esac
}

fail() {
    echo "packages.sh: $*" >&2
    exit 1
}

# apt sees one suite at a time, so that no version of another is taken.
use_suite() { # SUITE ARCH...
    rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
    echo "deb $MIRROR $1 main" >/etc/apt/sources.list
    shift
    for arch; do
        dpkg --add-architecture "$arch"
    done
    apt-get update -q
}

pins() { # SUITE: "PACKAGE VERSION" lines of its table in images.toml
    awk -v head="[packages.$1]" '
        /^\[/ { inside = ($0 == head); next }
        inside && /^"/ { split($0, part, "\""); print part[2], part[4] }' "$here/images.toml"
}

# The version that TABLE, a file of pins, has for each package of the list FOUND; a difference ends the build.
require_pinned() { # TABLE FOUND
    awk -v mend="write new pins (edgebit cross pin), or build from Debian's archive of that day (--mirror)" '
        FILENAME == ARGV[1] { pinned[$1] = $2; next }
        !($1 in pinned) { print $1 " " $2 ": images.toml has no pin for it: " mend; bad = 1; next }
        pinned[$1] != $2 { print $1 ": pinned is " pinned[$1] ", the archive has " $2 ": " mend; bad = 1 }
        END { exit bad }' "$1" "$2" >&2 || fail "not what images.toml pins"
}

# "PACKAGE VERSION" of all that would be new. What the base has already is the base's matter, and compiles nothing.
simulate() { # PACKAGE...
    apt-get install --simulate --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1 \2/p'
}

offered() { # PACKAGE...: "PACKAGE VERSION" of the archive, whatever is installed
    for package; do
        apt-cache madison "$package" | awk -v name="$package" 'NR == 1 { print name, $3 }'
    done
}

install_compiler() { # TRIPLE
    use_suite "$suite"
    pins "$suite" >/tmp/pinned
    # A priority above 1000 takes the pinned version even where the archive has a newer one.
    awk '{ printf "Package: %s\nPin: version %s\nPin-Priority: 1001\n\n", $1, $2 }' /tmp/pinned >/etc/apt/preferences.d/pins
    # shellcheck disable=SC2046,SC2086 # lists of names
    set -- $(compiler_of "$1") $tools
    simulate "$@" >/tmp/found
    require_pinned /tmp/pinned /tmp/found
    apt-get install -qy --no-install-recommends "$@"
    rm /etc/apt/preferences.d/pins
}

unpack_libc() { # TRIPLE
    from=$(libc_suite_of "$1")
    use_suite "$from" "$(debian_arch "$1")"
    pins "$from" >/tmp/pinned
    # shellcheck disable=SC2046 # a list of names
    set -- $(libc_of "$1")
    offered "$@" >/tmp/found
    require_pinned /tmp/pinned /tmp/found
    mkdir -p /opt/libc /tmp/packages
    (
        cd /tmp/packages
        # The sandbox user of apt may not write here, and needs not: all is checked by its signed sum.
        # shellcheck disable=SC2046 # PACKAGE=VERSION, each a word
        apt-get download -q -o APT::Sandbox::User=root $(sed 's/ /=/' /tmp/found)
        for file in ./*.deb; do
            dpkg-deb --extract "$file" /opt/libc
        done
    )
}

case ${1:-} in
install)
    install_compiler "$2"
    unpack_libc "$2"
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /tmp/*
    ;;
versions)
    use_suite "$suite" arm64 amd64 >&2
    for triple in aarch64-linux-gnu x86_64-linux-gnu; do
        # shellcheck disable=SC2046,SC2086 # lists of names
        simulate $(compiler_of "$triple") $tools
    done | sort -u | sed "s/^/$suite /"
    for triple in aarch64-linux-musl x86_64-linux-musl; do
        # shellcheck disable=SC2046 # a list of names
        offered $(libc_of "$triple") | sed "s/^/$suite /"
    done
    use_suite "$LIBC_SUITE" >&2
    for triple in aarch64-linux-gnu x86_64-linux-gnu; do
        # shellcheck disable=SC2046 # a list of names
        offered $(libc_of "$triple") | sed "s/^/$LIBC_SUITE /"
    done
    ;;
*)
    fail "write: packages.sh install TRIPLE | versions"
    ;;
esac
