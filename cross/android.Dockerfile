# The cross image for Android: Google's NDK for Linux, by its SHA-256. `edgebit cross build android` builds it, and says how.
# By hand, in the folder cross/, with the release and its sum from images.toml:
#   docker build -f android.Dockerfile --build-arg NDK=... --build-arg NDK_SHA256=... -t edgebit-cross:aarch64-linux-android .
#
# TRIPLE      ARCH-linux-android
# NDK         release: r28c; the NDK exists for x86-64 hosts alone
# NDK_SHA256  of its zip: any other ends the build
# API_LEVEL   the oldest Android of what $CC links; `edgebit build` takes the target's own
# PAGE_SIZE   bytes of the largest page that $CC aligns to: 16384 is what Android 15 and later may have
# BASE        Debian; `edgebit cross build` gives it by digest where it has one. It compiles nothing
# MIRROR      Debian's archive, or a dated copy of it
# SOURCE      where the zip lies
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS tools
ARG MIRROR=http://deb.debian.org/debian
# hadolint ignore=DL3008 # cmake, ninja and what unpacks the NDK change no byte of what it compiles
RUN rm -f /etc/apt/sources.list.d/* && echo "deb ${MIRROR} bookworm main" >/etc/apt/sources.list && apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
    ca-certificates cmake curl ninja-build unzip \
    && rm -rf /var/lib/apt/lists/*

FROM tools AS ndk
ARG NDK
ARG NDK_SHA256
ARG SOURCE=https://dl.google.com/android/repository
RUN test -n "${NDK}" && test -n "${NDK_SHA256}" \
    && curl --fail --silent --show-error --location --output /tmp/ndk.zip "${SOURCE}/android-ndk-${NDK}-linux.zip" \
    && echo "${NDK_SHA256}  /tmp/ndk.zip" >/tmp/sum && sha256sum --check /tmp/sum \
    && unzip -q /tmp/ndk.zip "android-ndk-${NDK}/source.properties" "android-ndk-${NDK}/NOTICE*" \
    "android-ndk-${NDK}/toolchains/llvm/*" -d /tmp \
    && mv "/tmp/android-ndk-${NDK}" /opt/android-ndk && rm /tmp/ndk.zip

FROM tools
ARG TRIPLE=aarch64-linux-android
ARG API_LEVEL=24
ARG PAGE_SIZE=16384
COPY --from=ndk /opt/android-ndk /opt/android-ndk
ENV ANDROID_NDK_HOME=/opt/android-ndk CC=edgebit-cc LC_ALL=C.UTF-8
COPY image/ndk_compiler.sh /opt/edgebit/
RUN sh /opt/edgebit/ndk_compiler.sh "${TRIPLE}" "${API_LEVEL}" "${PAGE_SIZE}" \
    && useradd --create-home builder && mkdir /src
USER builder
WORKDIR /src
CMD ["bash"]
