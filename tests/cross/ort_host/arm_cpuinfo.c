/* arm_cpuinfo.c - preloaded under qemu-user: /proc/cpuinfo as an ARM machine has it, in the place of this machine's own.
 *
 * ONNX Runtime on AArch64 counts the processors of that file, finds none of ARM's in a PC's, and ends with SIGSEGV before
 * its first call. The file named in ARM_CPUINFO is opened instead. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static const char *instead(const char *path) {
    const char *file = getenv("ARM_CPUINFO");
    return file && path && !strcmp(path, "/proc/cpuinfo") ? file : path;
}

#define OPEN(NAME)                                                                                                     \
    int NAME(const char *path, int flags, ...) {                                                                       \
        int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #NAME);                \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                                  \
        va_end(more);                                                                                                  \
        return next(instead(path), flags, mode);                                                                       \
    }
OPEN(open)
OPEN(open64)

FILE *fopen(const char *path, const char *mode) {
    FILE *(*next)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen");
    return next(instead(path), mode);
}

FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }
