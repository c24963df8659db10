# The Android NDK's clang, with the NDK's own headers and libraries. Not CMake's Android mode: what it would add is said here.
#   EB_ARCH_NAME  aarch64 or x86_64      EB_CC  path of the NDK's clang      EB_API_LEVEL  the oldest Android: 24
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${EB_ARCH_NAME})
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EB_ARCH_NAME EB_CC EB_API_LEVEL)
set(CMAKE_C_COMPILER ${EB_CC})
set(CMAKE_C_COMPILER_TARGET ${EB_ARCH_NAME}-linux-android${EB_API_LEVEL})
set(EB_ISA_DIALECT gnu)
set(EB_RUN_STATIC OFF) # Android's loader and libc
set(CMAKE_C_FLAGS_INIT "-g0")
set(EB_ALL_LINKER_FLAGS "-fuse-ld=lld -Wl,--build-id=none -Wl,--hash-style=gnu")
set(CMAKE_EXE_LINKER_FLAGS_INIT "${EB_ALL_LINKER_FLAGS} -pie -Wl,-z,max-page-size=65536 -Wl,-z,noexecstack -Wl,-z,relro -Wl,-z,now")
set(CMAKE_SHARED_LINKER_FLAGS_INIT "${EB_ALL_LINKER_FLAGS}")
include(${CMAKE_CURRENT_LIST_DIR}/search.cmake)
