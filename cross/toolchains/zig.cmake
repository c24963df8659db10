# zig as C compiler: no root, no container, its own libc. The library needs no libc and edgebit-run is linked statically
# to musl, so the triple's ABI does not matter and one zig target serves all of an architecture.
#   EB_ARCH_NAME  aarch64 or x86_64      EB_ZIG  path of the zig program
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${EB_ARCH_NAME})
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EB_ARCH_NAME EB_ZIG)
set(CMAKE_C_COMPILER ${EB_ZIG} cc -target ${EB_ARCH_NAME}-linux-musl)
set(EB_ISA_DIALECT zig) # zig refuses -march=armv8.2-a+dotprod
# zig adds its undefined-behaviour checks by itself where optimisation is off, as in CMake's own trials.
set(CMAKE_C_FLAGS_INIT "-fno-sanitize=undefined -g0")
# Only the program: its libc is built with debug information, 1.7 MB of it. zig takes all names away with it, and the
# check of the library's instructions reads the names of its functions.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,--strip-debug")
include(${CMAKE_CURRENT_LIST_DIR}/search.cmake)
