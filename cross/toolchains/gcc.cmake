# A cross gcc found on this machine, such as Debian's gcc-aarch64-linux-gnu.
#   EB_ARCH_NAME  aarch64 or x86_64      EB_CC  path of the compiler
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${EB_ARCH_NAME})
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EB_ARCH_NAME EB_CC)
set(CMAKE_C_COMPILER ${EB_CC})
set(EB_ISA_DIALECT gnu)
set(CMAKE_C_FLAGS_INIT "-g0")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,--build-id=none")
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-Wl,--build-id=none")
include(${CMAKE_CURRENT_LIST_DIR}/search.cmake)
