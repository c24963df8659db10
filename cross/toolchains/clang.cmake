# clang and lld with the headers and libraries of a cross libc found on this machine (Debian: libc6-dev-arm64-cross and
# libgcc-12-dev-arm64-cross, which come with the cross gcc).
#   EB_ARCH_NAME  aarch64 or x86_64      EB_CC  path of clang      EB_TRIPLE  aarch64-linux-gnu
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${EB_ARCH_NAME})
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EB_ARCH_NAME EB_CC EB_TRIPLE)
set(CMAKE_C_COMPILER ${EB_CC})
set(CMAKE_C_COMPILER_TARGET ${EB_TRIPLE})
set(EB_ISA_DIALECT gnu)
set(CMAKE_C_FLAGS_INIT "-g0")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-fuse-ld=lld -Wl,--build-id=none")
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-fuse-ld=lld -Wl,--build-id=none")
include(${CMAKE_CURRENT_LIST_DIR}/search.cmake)
