/* mem.h - memory functions without a libc, and reading numbers from the bytes of a file.
 *
 * mem.c defines memcpy, memmove, memset and memcmp under their usual names, hidden, for the calls that a compiler makes
 * by itself. Code uses the names below: -ffreestanding turns off the inlining of the plain ones. */
#ifndef EB_MEM_H
#define EB_MEM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "edgebit reads little-endian files in place: a big-endian CPU is not supported"
#endif

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

#define eb_memcpy __builtin_memcpy
#define eb_memmove __builtin_memmove
#define eb_memset __builtin_memset
#define eb_memcmp __builtin_memcmp

/* Numbers at any alignment. */
static inline uint16_t eb_load_u16(const void *from) {
    uint16_t value;
    eb_memcpy(&value, from, sizeof value);
    return value;
}

static inline uint32_t eb_load_u32(const void *from) {
    uint32_t value;
    eb_memcpy(&value, from, sizeof value);
    return value;
}

static inline int32_t eb_load_i32(const void *from) { return (int32_t)eb_load_u32(from); }

static inline uint64_t eb_load_u64(const void *from) {
    uint64_t value;
    eb_memcpy(&value, from, sizeof value);
    return value;
}

static inline void eb_store_u32(void *to, uint32_t value) { eb_memcpy(to, &value, sizeof value); }
static inline void eb_store_u64(void *to, uint64_t value) { eb_memcpy(to, &value, sizeof value); }

static inline float eb_load_f32(const void *from) {
    float value;
    eb_memcpy(&value, from, sizeof value);
    return value;
}

#endif
