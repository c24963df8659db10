#!/bin/sh
# Makes the compiler that links to the libc in /opt/libc, and tries it; runs inside an image's build.
#   libc_compiler.sh TRIPLE NAME [GLIBC]   writes /usr/local/bin/NAME
# GLIBC: the newest version of glibc that a program linked dynamically may ask for; empty for musl, whose are static.
#
# Why not --sysroot: Debian's cross gcc searches its own libc all the same, and links a newer glibc without a word.
set -eu

triple=$1 name=$2 glibc=${3:-}
libc=/opt/libc
gcc=${triple%%-*}-linux-gnu-gcc

# Links and linker scripts of the packages name places below /, and those are the build system's.
find "$libc" -type l -lname '/*' | while read -r link; do
    ln -sfn "$libc$(readlink "$link")" "$link"
done
find "$libc" -name '*.so' -type f -size -2k -exec grep -l '^GROUP' {} + | while read -r script; do
    sed -i 's, /[^ ]*/\([^/ ]*\), \1,g' "$script"
done
if [ -n "$glibc" ]; then # gcc asks for libgcc_s by a name that only its own package has
    ln -sfn "$(find "$libc" -name libgcc_s.so.1)" "$libc/usr/lib/$triple/libgcc_s.so"
fi

cat >"/usr/local/bin/$name" <<END
#!/bin/sh
exec $gcc -nostdinc -isystem $("$gcc" -print-file-name=include) -isystem $libc/usr/include/$triple \\
    -isystem $libc/usr/include -B$libc/usr/lib/$triple/ -L$libc/usr/lib/$triple -L$libc/lib/$triple "\$@"
END
chmod 755 "/usr/local/bin/$name"

# What must hold: threads, mathematics and stat (whose symbols are new in glibc 2.33) ask for no newer glibc; musl is static.
cat >/tmp/try.c <<'END'
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
static void *run(void *path) {
    static struct stat found;
    return stat(path, &found) == 0 ? &found : 0;
}
int main(int argc, char **argv) {
    pthread_t thread;
    void *found;
    pthread_create(&thread, 0, run, argv[argc - 1]);
    pthread_join(thread, &found);
    printf("%g\n", pow(argc, found ? exp(argc) : 2));
    return 0;
}
END
if [ -n "$glibc" ]; then
    "$name" -O2 -o /tmp/try /tmp/try.c -pthread -lm
    newest=$(objdump -T /tmp/try 2>/dev/null || "${gcc%gcc}objdump" -T /tmp/try)
    newest=$(echo "$newest" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
    if [ -z "$newest" ] || [ "$(printf '%s\n%s\n' "$newest" "$glibc" | sort -V | tail -n 1)" != "$glibc" ]; then
        echo "libc_compiler.sh: $name links glibc ${newest:-unknown}, not $glibc or older" >&2
        exit 1
    fi
    echo "$name: programs ask for glibc $newest, and may ask for $glibc"
else
    "$name" -O2 -static -o /tmp/try /tmp/try.c -pthread -lm
    if grep -aq 'GLIBC_\|GNU C Library' /tmp/try; then
        echo "libc_compiler.sh: $name links glibc, not musl" >&2
        exit 1
    fi
    echo "$name: programs are static, with musl"
fi
rm /tmp/try /tmp/try.c
