/* crc32.h - CRC-32 as in zlib, PNG and POSIX zip files. */
#ifndef EB_CRC32_H
#define EB_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* The sum of [size] bytes, going on from `crc`; 0 to begin. */
uint32_t eb_crc32(uint32_t crc, const void *data, size_t size);

#endif
