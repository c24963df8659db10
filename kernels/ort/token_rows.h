/* token_rows.h - what both products do with a token's activations before they are quantised, and with their scratch. */
#ifndef EB_ORT_TOKEN_ROWS_H
#define EB_ORT_TOKEN_ROWS_H

#include "matmul.h"
#include "mem.h"
#include "ops.h"

/* The next part of a scratch memory, at a cache line. `at` is where it ends so far. */
static inline uintptr_t eb_scratch_take(uintptr_t *at, size_t bytes) {
    const uintptr_t begin = (*at + 63) / 64 * 64;
    *at = begin + bytes;
    return begin;
}

/* Token `t` as floats filled up with zeros to a multiple of 64: where it lies if it is that already and aligned, else in `room`. */
static inline const float *eb_token_row(const eb_matmul *m, size_t t, float *room) {
    const char *row = (const char *)m->x + t * m->columns * eb_float_size(m->kind);
    const size_t padded = eb_round_up(m->columns, 64);
    if (m->kind == EB_FLOAT32 && padded == m->columns && (uintptr_t)row % sizeof(float) == 0)
        return (const float *)(const void *)row;
    eb_floats_load(room, row, m->kind, m->columns);
    eb_memset(room + m->columns, 0, (padded - m->columns) * sizeof *room);
    return room;
}

/* Part `number` of `of` of n things. */
static inline size_t eb_part_begin(size_t number, size_t of, size_t n) {
    return n / of * number + n % of * number / of;
}

#endif
