/* fingerprint.h - a 64-bit number that stands for bytes: FNV-1a. Against mistakes, not against an adversary. */
#ifndef EB_FINGERPRINT_H
#define EB_FINGERPRINT_H

#include <stdint.h>

#define EB_FINGERPRINT_BEGIN UINT64_C(0xcbf29ce484222325)

/* That of [size] bytes, going on from `before`. */
static inline uint64_t eb_fingerprint(uint64_t before, const void *bytes, uint64_t size) {
    const unsigned char *byte = bytes;
    for (uint64_t i = 0; i < size; i++)
        before = (before ^ byte[i]) * UINT64_C(0x100000001b3);
    return before;
}

#endif
