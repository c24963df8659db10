# The cross images for Linux, one for each triple: `edgebit cross build TARGET` builds one, and says how.
# By hand, in the folder cross/:
#   docker build -f linux.Dockerfile --build-arg TRIPLE=aarch64-linux-musl -t edgebit-cross:aarch64-linux-musl .
#
# TRIPLE      ARCH-linux-gnu or ARCH-linux-musl
#   gnu       TRIPLE-gcc is Debian's, as it is on a Debian host: the same bytes. It makes what needs no libc
#             (libedgebit.so) and what brings its own (edgebit-run, static). TRIPLE-floor-gcc links programs dynamically
#             to the glibc of LIBC_SUITE: they run wherever glibc is FLOOR or newer. A shell has it as $CC.
#   musl      TRIPLE-gcc is the same compiler with musl: static programs of a few dozen KB of libc
# BASE        Debian of the suite that image/packages.sh names; `edgebit cross build` gives it by digest where it has one
# MIRROR      Debian's archive, or a dated copy of it
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG TRIPLE=aarch64-linux-gnu
ARG LIBC_SUITE=bullseye
ARG FLOOR=2.31
ARG MIRROR=http://deb.debian.org/debian

COPY images.toml image/ /opt/edgebit/
RUN LIBC_SUITE="${LIBC_SUITE}" MIRROR="${MIRROR}" sh /opt/edgebit/packages.sh install "${TRIPLE}"
RUN case "${TRIPLE}" in \
    *-gnu) sh /opt/edgebit/libc_compiler.sh "${TRIPLE}" "${TRIPLE}-floor-gcc" "${FLOOR}" && name="${TRIPLE}-floor-gcc" ;; \
    *) sh /opt/edgebit/libc_compiler.sh "${TRIPLE}" "${TRIPLE}-gcc" && name="${TRIPLE}-gcc" ;; \
    esac && ln -s "${name}" /usr/local/bin/edgebit-cc && useradd --create-home builder && mkdir /src
ENV CC=edgebit-cc LC_ALL=C.UTF-8
USER builder
WORKDIR /src
CMD ["bash"]
