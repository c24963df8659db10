#!/bin/sh
# Makes edgebit-cc, the NDK's clang for one triple, API level and page size; runs as root inside the image's build.
#   ndk_compiler.sh TRIPLE API_LEVEL PAGE_SIZE
# The first program that it links is looked at: a flag that an NDK ignores shows here, and not on a phone.
set -eu

triple=$1 level=$2 page=$3
bin=/opt/android-ndk/toolchains/llvm/prebuilt/linux-x86_64/bin
cc=/usr/local/bin/edgebit-cc

fail() {
    echo "ndk_compiler.sh: $*" >&2
    exit 1
}

[ -x $bin/clang ] || fail "the NDK has no $bin/clang: it is for x86-64 Linux"
[ -d "$bin/../sysroot/usr/lib/$triple/$level" ] || fail "the NDK has no API level $level for $triple"
cat >$cc <<END
#!/bin/sh
exec $bin/clang --target=$triple$level -fuse-ld=lld -Wl,-z,max-page-size=$page "\$@"
END
chmod 755 $cc

folder=$(mktemp -d)
echo 'int main(void) { return 0; }' >"$folder/main.c"
$cc -o "$folder/main" "$folder/main.c"
$bin/llvm-readelf --program-headers --wide "$folder/main" >"$folder/headers"
grep -q '/system/bin/linker64' "$folder/headers" || fail "what it links is no program for Android"
awk '$1 == "LOAD" { print $NF }' "$folder/headers" >"$folder/pages"
[ -s "$folder/pages" ] || fail "what it links has nothing to load"
while read -r align; do
    [ $((align)) -ge "$page" ] || fail "what it links is aligned to $align, not to $page"
done <"$folder/pages"
rm -r "$folder"
