/* adapter_file.c - see adapter_file.h. */
#include "adapter_file.h"
#include "fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

static FILE *opened(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file)
        die(EXIT_MODEL, "%s: cannot be read: %s", path, strerror(errno));
    return file;
}

/* Counted by reading, with no more of libc than the rest of the program asks of Android. */
static size_t size_of(const char *path) {
    char bytes[4096];
    size_t size = 0;
    FILE *file = opened(path);
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, file)) > 0;)
        size += n;
    fclose(file);
    return size;
}

adapter_file open_adapter_file(const eb_model *model, const char *path) {
    const size_t size = size_of(path);
    FILE *file = opened(path);
    adapter_file out = {.block = allocate(size + ALIGNMENT)};
    unsigned char *data = (unsigned char *)(((uintptr_t)out.block + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (fread(data, 1, size, file) != size)
        die(EXIT_MODEL, "%s: cannot be read: it became shorter", path);
    fclose(file);
    eb_error error;
    const eb_status status = eb_adapter_open(model, data, size, &out.adapter, &error);
    if (status)
        die(exit_code(status), "%s: %s", path, error.text);
    return out;
}
