/* fault.c - see fault.h. */
#include "fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void die(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("edgebit-run: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(code);
}

void *allocate(size_t size) {
    void *memory = malloc(size ? size : 1);
    if (!memory)
        die(EXIT_ENGINE, "no memory for %zu bytes", size);
    return memory;
}

int exit_code(eb_status status) {
    switch (status) {
    case EB_OK:
        return EXIT_OK;
    case EB_IO:
    case EB_BAD_FORMAT:
    case EB_UNSUPPORTED:
        return EXIT_MODEL;
    case EB_MISMATCH:
        return EXIT_PROBE;
    case EB_CANCELLED:
        return EXIT_INTERRUPT;
    default:
        return EXIT_ENGINE;
    }
}
