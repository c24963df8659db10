/* model_place.c - finds model.ebm in a bundle by reading its tar headers: nothing is unpacked. */
#include "model_place.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK = 512, ERROR_SIZE = 256 };
static const char member_name[] = "model.ebm";

/* An octal number of a tar header, or a binary one where its first bit is set (sizes from 8 GiB). -1: neither. */
static int64_t tar_number(const unsigned char *field, size_t size) {
    int64_t value = 0;
    if (field[0] == 0x80) {
        for (size_t i = size - 8; i < size; i++)
            value = value << 8 | field[i];
        return value;
    }
    size_t i = 0;
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
        value = value * 8 + (field[i] - '0');
    return i == size || field[i] == 0 || field[i] == ' ' ? value : -1;
}

static int scan_tar(FILE *file, model_place *out, char *error) {
    unsigned char head[BLOCK];
    for (uint64_t at = 0;;) {
        if (fseeko(file, (off_t)at, SEEK_SET) || fread(head, 1, BLOCK, file) != BLOCK || head[0] == 0) {
            snprintf(error, ERROR_SIZE, "the bundle has no member %s", member_name);
            return -1;
        }
        const int64_t size = tar_number(head + 124, 12);
        if (memcmp(head + 257, "ustar", 5) || size < 0 || size > INT64_MAX / 4) {
            snprintf(error, ERROR_SIZE, "the bundle's tar header at byte %llu is damaged", (unsigned long long)at);
            return -1;
        }
        const char *name = (const char *)head;
        if (!strncmp(name, "./", 2))
            name += 2;
        const int is_file = head[156] == '0' || head[156] == 0;
        if (is_file && !strncmp(name, member_name, sizeof member_name)) {
            out->offset = at + BLOCK;
            out->size = (uint64_t)size;
            return 0;
        }
        at += BLOCK + ((uint64_t)size + BLOCK - 1) / BLOCK * BLOCK;
    }
}

int find_model(const char *given, model_place *out, char *error) {
    struct stat info;
    *out = (model_place){.offset = 0};
    if (stat(given, &info)) {
        snprintf(error, ERROR_SIZE, "there is no such file");
        return -1;
    }
    const int is_folder = S_ISDIR(info.st_mode);
    if ((size_t)snprintf(out->path, sizeof out->path, is_folder ? "%s/%s" : "%s", given, member_name) >=
        sizeof out->path) {
        snprintf(error, ERROR_SIZE, "the path is too long");
        return -1;
    }
    if (is_folder)
        return 0;
    FILE *file = fopen(given, "rb");
    if (!file) {
        snprintf(error, ERROR_SIZE, "it cannot be opened for reading");
        return -1;
    }
    unsigned char head[BLOCK] = {0};
    const size_t n = fread(head, 1, BLOCK, file);
    const int is_tar = n == BLOCK && !memcmp(head + 257, "ustar", 5);
    const int failed = is_tar && scan_tar(file, out, error);
    fclose(file);
    return failed ? -1 : 0;
}
