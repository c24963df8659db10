/* arena.h - one block of host memory, measured first and then given out in aligned pieces. */
#ifndef EB_ARENA_H
#define EB_ARENA_H

#include "edgebit.h"

/* Used twice over the same takes: with base NULL it only adds up `used`; then it gives memory out. */
typedef struct eb_arena {
    unsigned char *base; /* aligned to 64 bytes, or NULL while measuring */
    uint64_t used;       /* bytes taken; UINT64_MAX once a size has overflowed */
} eb_arena;

/* [count] elements of `size` bytes, aligned to 64 bytes; NULL while measuring. */
void *eb_arena_take(eb_arena *arena, uint64_t count, uint64_t size);

/* Host memory of `size` bytes, aligned to 64 bytes: *block is what host->free() takes. NULL where there is none. */
void *eb_arena_block(const eb_host *host, uint64_t size, void **block);

#endif
