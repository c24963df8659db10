#!/bin/sh
# Names a C compiler by what its output depends on; run by edgebit on this machine and inside images alike.
#   identify.sh LINKER CC [FLAG...]
# Line 1: compiler, linker and libc, with versions. Line 2: the SHA-256 over what a static program takes from outside:
# start-up objects, libgcc, libc.
set -eu

linker=$1
shift
version=$("$@" --version | head -n 1)
case $version in # gcc gives the name it was called by, which is not the same everywhere
*clang*) ;;
*) version="gcc ${version#* }" ;;
esac
program=$("$@" -print-prog-name="$linker")

parts=
for name in crt1.o crti.o crtbeginT.o crtend.o crtn.o libgcc.a libgcc_eh.a libc.a; do
    path=$("$@" -print-file-name="$name")
    [ "$path" = "$name" ] || parts="$parts $path" # the bare name: it has none
done
[ -n "$parts" ] || {
    echo "identify.sh: $* finds no libc: no crt1.o, no libc.a" >&2
    exit 1
}
libc=$("$@" -print-file-name=libc.a)
case $libc in
libc.a) libc="no static libc" ;;
*musl*) libc=musl ;;
*) libc=glibc\ $(grep -ao 'GNU C Library .* version [0-9.]*[0-9]' "$libc" | head -n 1 | sed 's/.*version //') ;;
esac

echo "$version, $("$program" --version | head -n 1), $libc"
# shellcheck disable=SC2086 # a list of paths without spaces: of a compiler's own folders
cat $parts | sha256sum | cut -d ' ' -f 1
