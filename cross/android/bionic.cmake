# edgebit-run for Android's own libc without an NDK: our declarations (bionic.h) in place of the standard headers, and a
# libc.so that has the names alone (bionic_stub.c) to link against.
#   EB_BIONIC  this folder      EB_API_LEVEL  the oldest Android that the program is for
if(NOT EB_ARCH STREQUAL aarch64)
  message(FATAL_ERROR "EB_BIONIC: bionic.h describes aarch64 only, not ${EB_ARCH}")
endif()

set(EB_BIONIC_HEADERS ${CMAKE_CURRENT_BINARY_DIR}/bionic)
foreach(header errno fcntl limits pthread sched signal stdarg stddef stdint stdio stdlib string sys/auxv sys/mman
               sys/resource sys/stat time unistd)
  file(CONFIGURE OUTPUT ${EB_BIONIC_HEADERS}/${header}.h CONTENT "#include \"@EB_BIONIC@/bionic.h\"\n" @ONLY)
endforeach()
set(EB_BIONIC_FLAGS -nostdinc -I${EB_BIONIC_HEADERS} -ffreestanding -fPIC -fno-stack-protector
                    -mno-outline-atomics ${EB_KEEP_X18_${EB_ISA_DIALECT}} -ffile-prefix-map=${CMAKE_CURRENT_BINARY_DIR}=/build
                    -ffile-prefix-map=${EB_BIONIC}=/cross/android)

add_library(bionic_stub SHARED ${EB_BIONIC}/bionic_stub.c)
set_target_properties(bionic_stub PROPERTIES OUTPUT_NAME c LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/bionic)
target_compile_options(bionic_stub PRIVATE ${EB_BIONIC_FLAGS})
target_link_options(bionic_stub PRIVATE -nostdlib -Wl,-soname,libc.so -Wl,--version-script=${EB_BIONIC}/bionic.map)

target_sources(edgebit-run PRIVATE ${EB_BIONIC}/bionic_start.c)
target_compile_definitions(edgebit-run PRIVATE EB_API_LEVEL=${EB_API_LEVEL})
target_compile_options(edgebit-run PRIVATE ${EB_BIONIC_FLAGS})
target_link_libraries(edgebit-run PRIVATE bionic_stub)
set_target_properties(edgebit-run PROPERTIES SKIP_BUILD_RPATH ON)
# The loader makes whole pages read-only after relocation, so what is written later must begin at a page of the largest
# size: common-page-size.
target_link_options(edgebit-run PRIVATE -nostdlib -pie -Wl,-dynamic-linker,/system/bin/linker64 -Wl,--hash-style=gnu
                    -Wl,-z,max-page-size=65536 -Wl,-z,common-page-size=65536 -Wl,-z,noexecstack -Wl,-z,relro -Wl,-z,now)
