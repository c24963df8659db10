/* int8_matmul.c - products with int8 weights in plain rows: the head, whose activations take 15 bits. */
#include "float_mode.h"
#include "matmul.h"
#include "token_rows.h"

enum { ONE_TOKEN_ROWS = 256, BLOCK_ROWS = 32 }; /* rows that stay in a cache for the next token */

typedef struct task {
    eb_matmul m;
    eb_u8_rows w;
    size_t x_stride, n_parts;
    int8_t *hi, *lo; /* [tokens][x_stride] */
    int64_t *sum;    /* [tokens] of 128 hi + lo */
    float *scale;    /* [tokens] */
    eb_slots slots;  /* of a token as floats */
} task;

static uintptr_t lay_out(task *t, const eb_matmul *m, uintptr_t at) {
    *t = (task){.m = *m, .x_stride = eb_round_up(m->columns, 64)};
    t->hi = (int8_t *)eb_scratch_take(&at, m->tokens * t->x_stride);
    t->lo = (int8_t *)eb_scratch_take(&at, m->tokens * t->x_stride);
    t->sum = (int64_t *)eb_scratch_take(&at, m->tokens * sizeof *t->sum);
    t->scale = (float *)eb_scratch_take(&at, m->tokens * sizeof *t->scale);
    t->slots.size = t->x_stride * sizeof(float);
    t->slots.n = m->tokens < EB_MOST_PARTS ? m->tokens : EB_MOST_PARTS;
    t->slots.at = (unsigned char *)eb_scratch_take(&at, t->slots.n * t->slots.size);
    return at;
}

static void quantise_part(void *context, size_t number) {
    task *t = context;
    const eb_float_mode before = eb_float_mode_enter();
    float *room = eb_slot_take(&t->slots);
    const size_t end = eb_part_begin(number + 1, t->n_parts, t->m.tokens);
    for (size_t i = eb_part_begin(number, t->n_parts, t->m.tokens); i < end; i++) {
        int8_t *hi = t->hi + i * t->x_stride, *lo = t->lo + i * t->x_stride;
        t->m.kernels->quantise_i15(hi, lo, &t->scale[i], eb_token_row(&t->m, i, room), t->m.columns);
        int32_t high = 0, low = 0; /* at most 65,536 numbers of each */
        for (size_t c = 0; c < t->m.columns; c++)
            high += hi[c], low += lo[c];
        t->sum[i] = 128 * (int64_t)high + low;
    }
    eb_slot_give(&t->slots, room);
    eb_float_mode_leave(before);
}

static void put_values(const task *t, size_t token, size_t row, size_t n_rows) {
    int64_t dots[ONE_TOKEN_ROWS];
    float values[ONE_TOKEN_ROWS];
    const char *scales = (const char *)t->w.scales + row * sizeof(float);
    const eb_i15 x = {t->hi + token * t->x_stride, t->lo + token * t->x_stride};
    t->m.kernels->gemv_u8_i15(dots, t->w.codes + row * t->w.stride, &x, t->sum[token], t->w.stride, n_rows,
                              t->w.stride);
    for (size_t i = 0; i < n_rows; i++)
        values[i] = (float)dots[i] * (eb_load_f32(scales + i * sizeof(float)) * t->scale[token]);
    char *out = (char *)t->m.y + (token * t->m.rows + row) * eb_float_size(t->m.kind);
    eb_floats_store(out, t->m.kind, values, n_rows);
}

static void product_part(void *context, size_t number) {
    task *t = context;
    const eb_float_mode before = eb_float_mode_enter();
    const size_t end = eb_part_begin(number + 1, t->n_parts, t->m.rows);
    const size_t step = t->m.tokens == 1 ? ONE_TOKEN_ROWS : BLOCK_ROWS;
    for (size_t row = eb_part_begin(number, t->n_parts, t->m.rows); row < end; row += step)
        for (size_t token = 0; token < t->m.tokens; token++)
            put_values(t, token, row, row + step < end ? step : end - row);
    eb_float_mode_leave(before);
}

static void run(task *t, eb_part_fn *part, size_t units, size_t bytes) {
    t->n_parts = eb_parts(units, bytes);
    t->m.parallel->run(t->m.parallel, part, t->n_parts, t);
}

size_t eb_int8_scratch(const eb_matmul *m) {
    task t;
    return lay_out(&t, m, 0) + 64;
}

void eb_int8_matmul(const eb_matmul *m, const eb_u8_rows *w, void *scratch) {
    task t;
    lay_out(&t, m, (uintptr_t)scratch);
    t.w = *w;
    run(&t, quantise_part, m->tokens, m->tokens * m->columns * sizeof(float));
    run(&t, product_part, m->rows, m->tokens * m->rows * w->stride);
}
