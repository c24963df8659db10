# The device's side of a deploy where there is no Python: sh -c THIS sh ROOT VERB [ARGS], called by runner_only.py.
# shellcheck shell=sh
#
# The same slots as edgebit/bundle/slots.py makes, in plain POSIX sh (dash, busybox, mksh with toybox). Every verb may be
# cut off at any command: `active` names a complete slot before and after each of them, and `recover` clears what was
# left. Exit code 3: a file is not what it should be; 8: the device cannot do it. Standard error says why.
set -eu
umask 077
cd "$1"
verb=$2
shift 2

fail() { # CODE WORDS
    echo "$2" >&2
    exit "$1"
}

sum_of() {
    set -- "$(sha256sum <"$1")"
    echo "${1%% *}"
}

# Standard input becomes the file $1: all of it, or what was there before.
write() {
    cat >"$1.new"
    sync
    mv -f "$1.new" "$1"
    sync
}

# `active` becomes a link to slot $1 by one rename. toybox's mv follows the old link into its slot and says so, but its
# ln -sfn renames; busybox before 1.33 has neither: there `active.new` tells recover where a cut-off change was going.
point() {
    rm -f active.new
    ln -s "slots/$1" active.new
    if ! mv -fT active.new active 2>/dev/null; then
        ln -sfn "slots/$1" active
        rm -f active.new
    fi
    sync
    [ "$(readlink active)" = "slots/$1" ] || fail 8 "active cannot be changed: it is $(readlink active)"
}

# Slot $1 holds the bundle $2, complete; sizes are read from its own list.
holds() {
    [ -f "slots/$1/manifest.json" ] && [ -f "slots/$1/sizes" ] || return 1
    case $(sum_of "slots/$1/manifest.json") in "$2"*) ;; *) return 1 ;; esac
    while read -r size name; do
        [ "$(stat -L -c %s "slots/$1/$name" 2>/dev/null)" = "$size" ] || return 1
    done <"slots/$1/sizes"
}

case $verb in
recover)
    [ -L active ] || ! [ -L active.new ] || mv active.new active
    rm -rf slots/a.new slots/b.new slots/a.old slots/b.old active.new state.json.new trust.json.new
    ;;

sums) # SHA256...: prints those that the store lacks; what is damaged goes
    for sum; do
        [ -f "store/$sum" ] && [ "$(sum_of "store/$sum")" = "$sum" ] && continue
        rm -f "store/$sum"
        echo "$sum"
    done
    ;;

admit) # SHA256: what was sent is what was meant, and stays
    part=store/$1.part
    [ -f "$part" ] || [ ! -f "store/$1" ] || exit 0
    command -v sha256sum >/dev/null || fail 8 "the device has no sha256sum, so nothing proves what arrives there"
    got=$(sum_of "$part")
    if [ "$got" != "$1" ]; then
        rm -f "$part"
        fail 3 "sent a file with SHA-256 $1, the device has $got. Deploy again"
    fi
    chmod 444 "$part"
    sync
    mv -f "$part" "store/$1"
    sync
    ;;

stage) # SLOT (NAME SIZE SHA256)...: lay the bundle of the manifest on standard input into the slot that does not run
    slot=$1
    shift
    [ "$(readlink active || :)" != "slots/$slot" ] || fail 8 "slot $slot runs: another deploy came between. Deploy again"
    new=slots/$slot.new
    rm -rf "$new" "slots/$slot.old"
    mkdir "$new"
    while [ $# != 0 ]; do
        [ -f "store/$3" ] || fail 8 "$1 is not in the device's store: it was not sent. Deploy again"
        up=../..
        case $1 in
        */*)
            mkdir -p "$new/${1%/*}"
            up=../../..
            ;;
        esac
        # Android's SELinux rules forbid hard links.
        ln "store/$3" "$new/$1" 2>/dev/null || ln -s "$up/store/$3" "$new/$1"
        case $1 in bin/*) chmod 555 "store/$3" ;; esac
        echo "$2 $1" >>"$new/sizes"
        shift 3
    done
    cat >"$new/manifest.json"
    sync
    if [ -e "slots/$slot" ]; then
        mv "slots/$slot" "slots/$slot.old"
        rm -rf "slots/$slot.old"
    fi
    mv "$new" "slots/$slot"
    sync
    ;;

test) # SLOT: its golden probes, and four tokens as a user gets them; the last line says how it takes a prompt
    run=slots/$1/bin/edgebit-run model=slots/$1/model.ebm
    "$run" "$model" --check --verify
    if "$run" "$model" --chat -p Hello -n 4 >/dev/null 2>&1; then
        echo chat
    else
        "$run" "$model" -p Hello -n 4 >/dev/null
        echo plain
    fi
    ;;

write) # NAME SUM: standard input becomes NAME, if that still has the sum that the deploy saw ("none": there was none)
    now=none
    [ ! -f "$1" ] || now=$(sum_of "$1")
    [ "$now" = "$2" ] || fail 8 "another deploy came between. Deploy again"
    write "$1"
    sum_of "$1"
    ;;

point) # SLOT ID
    holds "$1" "$2" || fail 8 "slot $1 does not hold bundle $2 any more. Deploy it again"
    point "$1"
    ;;

prune) # SHA256...: throw away what is in the store and not named
    for place in store/*; do
        name=${place#store/}
        case " $* " in *" $name "*) ;; *) rm -f "$place" ;; esac
    done
    ;;

show) # prints what rollback and status need: the sum of state.json, and which slots are complete of "SLOT ID" arguments
    if [ -f state.json ]; then sum_of state.json; else echo none; fi
    while [ $# != 0 ]; do
        holds "$1" "$2" && echo "complete $1"
        shift 2
    done
    ;;

remove) # [NAME...]: take away what edgebit put there, but for these, and print what is left; no daemon may run
    for name in active active.new state.json state.json.new trust.json trust.json.new run/slots.lock \
        edgebitd.toml edgebitd.toml.new mqtt.password mqtt.password.new; do
        case " $* " in *" $name "*) ;; *) rm -f "$name" ;; esac
    done
    for slot in a b a.new b.new a.old b.old; do rm -rf "slots/$slot"; done
    for place in store/*; do
        name=${place#store/}
        name=${name%.z}
        name=${name%.part}
        case $name in *[!0-9a-f]*) ;; *) [ ${#name} != 64 ] || rm -f "$place" ;; esac
    done
    for folder in slots store run; do rmdir "$folder" 2>/dev/null || :; done
    for place in * .[!.]*; do
        if [ -e "$place" ]; then echo "$place"; fi
    done
    here=$PWD
    cd /
    rmdir "$here" 2>/dev/null || :
    ;;

*) fail 8 "unknown verb $verb" ;;
esac
