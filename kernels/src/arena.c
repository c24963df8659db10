/* arena.c - all memory of an engine, taken once. */
#include "arena.h"

void *eb_arena_take(eb_arena *arena, uint64_t count, uint64_t size) {
    if (arena->used == UINT64_MAX || (size && count > (UINT64_MAX / 4) / size) || arena->used > UINT64_MAX / 4) {
        arena->used = UINT64_MAX;
        return NULL;
    }
    void *taken = arena->base ? arena->base + arena->used : NULL;
    arena->used += (count * size + 63) / 64 * 64;
    return taken;
}

void *eb_arena_block(const eb_host *host, uint64_t size, void **block) {
    *block = NULL;
    if (size > SIZE_MAX / 2)
        return NULL;
    *block = host->malloc((size_t)size + 64);
    if (!*block)
        return NULL;
    return (void *)(((uintptr_t)*block + 63) & ~(uintptr_t)63);
}
