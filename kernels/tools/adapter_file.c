/* adapter_file.c - see adapter_file.h. */
#include "adapter_file.h"
#include "fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

static long size_of(FILE *file) {
    const long size = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    return fseek(file, 0, SEEK_SET) ? -1 : size;
}

adapter_file open_adapter_file(const eb_model *model, const char *path) {
    FILE *file = fopen(path, "rb");
    const long size = file ? size_of(file) : -1;
    if (size < 0)
        die(EXIT_MODEL, "%s: cannot be read: %s", path, strerror(errno));
    adapter_file out = {.block = allocate((size_t)size + ALIGNMENT)};
    unsigned char *data = (unsigned char *)(((uintptr_t)out.block + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (fread(data, 1, (size_t)size, file) != (size_t)size)
        die(EXIT_MODEL, "%s: cannot be read: %s", path, ferror(file) ? strerror(errno) : "it became shorter");
    fclose(file);
    eb_error error;
    const eb_status status = eb_adapter_open(model, data, (uint64_t)size, &out.adapter, &error);
    if (status)
        die(exit_code(status), "%s: %s", path, error.text);
    return out;
}
