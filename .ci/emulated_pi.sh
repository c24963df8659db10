#!/bin/sh
# An emulated Raspberry Pi: Debian 12 for aarch64 in a folder, whose programs run under qemu-user.
#
#   .ci/emulated_pi.sh [rootfs]          make the root file system, once; prints its folder
#   .ci/emulated_pi.sh sshd FOLDER PORT  its sshd on 127.0.0.1:PORT, until killed. FOLDER holds authorized_keys and
#                                        host_key, and gets what the device writes; the root file system stays as it is.
#   .ci/emulated_pi.sh getty FOLDER      a getty on the terminal that this is started on, until killed. FOLDER holds
#                                        password, the user's.
#   .ci/emulated_pi.sh shell             a shell in it, to look around
#   .ci/emulated_pi.sh phone FOLDER      make what edgebit sees of a phone over adb in the new FOLDER, for aarch64: mksh as
#                                        /system/bin/sh, toybox, no Python, and /data/local/tmp, the user's own
#   .ci/emulated_pi.sh in-phone FOLDER COMMAND   run a command line there as adb's user does
#
# EDGEBIT_PI_ROOTFS names the folder of the root file system (default /var/cache/edgebit-ci/pi-rootfs); the phone's lies
# beside it.
# Needs root, mmdebstrap and qemu-user-static; nothing outlives the process, not even a mount.
set -eu

rootfs=${EDGEBIT_PI_ROOTFS:-/var/cache/edgebit-ci/pi-rootfs}
phone_rootfs=$(dirname "$rootfs")/phone-rootfs
adb_user=2000 # Android's user "shell"

fail() {
    echo "emulated_pi.sh: $*" >&2
    exit 1
}

# Let the kernel start aarch64 programs with qemu, also inside a chroot (flag F keeps the interpreter open).
enable_emulation() {
    [ "$(uname -m)" = aarch64 ] && return
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
    grep -q '^flags:.*F' /proc/sys/fs/binfmt_misc/qemu-aarch64 || fail "qemu-aarch64 is registered without flag F"
}

make_rootfs() {
    [ -x "$rootfs/usr/sbin/sshd" ] && return
    mkdir -p "$(dirname "$rootfs")"
    exec 9>"$rootfs.lock"
    flock 9
    [ -x "$rootfs/usr/sbin/sshd" ] && return
    rm -rf "$rootfs.part"
    mmdebstrap --quiet --variant=minbase --skip=check/qemu --architectures=arm64 --aptopt='Acquire::Retries "5"' \
        --include=python3,openssh-server,mosquitto,mosquitto-clients,ca-certificates bookworm "$rootfs.part" >&2
    # A user like a Pi's: no password, let in by key alone.
    chroot "$rootfs.part" useradd --create-home --shell /bin/bash --password '*' pi
    mv "$rootfs.part" "$rootfs"
}

# What a phone's programs need, once. None of them is Android's: they are Debian's builds of what Android has.
make_phone_rootfs() {
    [ -x "$phone_rootfs/system/bin/sh" ] && return
    mkdir -p "$(dirname "$phone_rootfs")"
    exec 8>"$phone_rootfs.lock"
    flock 8
    [ -x "$phone_rootfs/system/bin/sh" ] && return
    rm -rf "$phone_rootfs.part"
    mmdebstrap --quiet --variant=extract --skip=check/qemu --architectures=arm64 --aptopt='Acquire::Retries "5"' \
        --include=mksh,toybox bookworm "$phone_rootfs.part" >&2
    mkdir -p "$phone_rootfs.part/system/bin" "$phone_rootfs.part/data/local/tmp" "$phone_rootfs.part/proc"
    echo "shell:x:$adb_user:$adb_user::/:/system/bin/sh" >"$phone_rootfs.part/etc/passwd"
    cp "$phone_rootfs.part/bin/mksh" "$phone_rootfs.part/system/bin/sh"
    for applet in $(chroot "$phone_rootfs.part" /bin/toybox); do
        ln -s /bin/toybox "$phone_rootfs.part/system/bin/$applet"
    done
    mv "$phone_rootfs.part" "$phone_rootfs"
}

# Run a command in the device: its own processes, its own mounts, its writes in FOLDER alone.
enter() {
    folder=$1
    shift
    mkdir -p "$folder/upper" "$folder/scratch" "$folder/system"
    # shellcheck disable=SC2016 # the inner shell expands these
    exec unshare --mount --propagation private --pid --fork --kill-child -- sh -eu -c '
        rootfs=$1 folder=$2
        shift 2
        if ! mount -t overlay overlay -o "lowerdir=$rootfs,upperdir=$folder/upper,workdir=$folder/scratch" "$folder/system" \
            2>/dev/null; then # inside a container, whose own files lie on an overlay already
            cp -an "$rootfs/." "$folder/upper"
            mount --bind "$folder/upper" "$folder/system"
        fi
        mount -t proc proc "$folder/system/proc"
        mount --rbind /dev "$folder/system/dev"
        exec chroot "$folder/system" "$@"
    ' sh "$rootfs" "$folder" "$@"
}

[ "$(id -u)" = 0 ] || fail "needs root"
case ${1:-rootfs} in
rootfs)
    enable_emulation
    make_rootfs
    echo "$rootfs"
    ;;
sshd)
    [ $# = 3 ] || fail "write: emulated_pi.sh sshd FOLDER PORT"
    enable_emulation
    make_rootfs
    upper=$2/upper
    mkdir -p "$upper/home/pi/.ssh" "$upper/etc/ssh" "$upper/run/sshd"
    cp "$2/host_key" "$upper/etc/ssh/test_host_key"
    cp "$2/authorized_keys" "$upper/home/pi/.ssh/authorized_keys"
    chmod 600 "$upper/etc/ssh/test_host_key" "$upper/home/pi/.ssh/authorized_keys"
    chmod 700 "$upper/home/pi/.ssh"
    chown -R "$(awk -F: '$1 == "pi" { print $3 ":" $4 }' "$rootfs/etc/passwd")" "$upper/home/pi"
    echo emulated-pi >"$upper/etc/hostname"
    enter "$2" /usr/sbin/sshd -D -e -f /dev/null -h /etc/ssh/test_host_key \
        -o "ListenAddress=127.0.0.1:$3" -o UsePAM=no -o PasswordAuthentication=no -o PidFile=none
    ;;
getty)
    [ $# = 2 ] || fail "write: emulated_pi.sh getty FOLDER"
    terminal=$(tty) || fail "getty wants a terminal"
    enable_emulation
    make_rootfs
    mkdir -p "$2/upper/root"
    printf 'pi:%s\n' "$(cat "$2/password")" >"$2/upper/root/password"
    # login hangs the terminal up, so each getty opens it anew.
    # shellcheck disable=SC2016 # the inner shell expands these
    enter "$2" /bin/sh -euc '
        chpasswd </root/password
        rm /root/password
        while :; do setsid --wait agetty --local-line 115200 "$1" vt100 || sleep 1; done
    ' sh "${terminal#/dev/}"
    ;;
shell)
    enable_emulation
    make_rootfs
    scratch=$(mktemp -d)
    enter "$scratch" /bin/bash
    ;;
phone)
    [ $# = 2 ] || fail "write: emulated_pi.sh phone FOLDER"
    enable_emulation
    make_phone_rootfs
    cp -a "$phone_rootfs" "$2"
    chown "$adb_user:$adb_user" "$2/data/local/tmp"
    ;;
in-phone)
    [ $# = 3 ] || fail "write: emulated_pi.sh in-phone FOLDER COMMAND"
    # shellcheck disable=SC2016 # the inner shell expands these
    exec unshare --mount --propagation private -- sh -eu -c '
        mount --rbind "$1" "$1" # so that / stands in /proc/mounts, where df looks
        cd "$1"
        mount -t proc proc proc
        mount --rbind /dev dev
        exec chroot --userspec "$3:$3" . /system/bin/env -i PATH=/system/bin HOME=/ /system/bin/sh -c "$2"
    ' sh "$2" "$3" "$adb_user"
    ;;
*)
    sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
