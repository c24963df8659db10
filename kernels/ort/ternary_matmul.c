/* ternary_matmul.c - products with ternary weights in layout n2.
 *
 * A tile of n2 is one of the engine's layout t2 but for two things. Field f of byte p holds column 4 p + f, not 16 f + p: so
 * the quantised activations are dealt out that way, once a token, and weights are read as they lie. And codes are weight
 * + 2, not + 1: the micro-kernels take the sum of the activations off once, so they are given twice that sum. */
#include "engine.h"
#include "float_mode.h"
#include "matmul.h"
#include "token_rows.h"

enum { BLOCK_TOKENS = 64, MOST_VALUES = BLOCK_TOKENS * EB_GEMM_ROWS, MOST_CODES_BYTES = 1 << 24 };

typedef struct task {
    eb_matmul m;
    eb_n2 w;
    size_t tiles, group_columns, group_k; /* group_k: filled up to a multiple of 64 */
    size_t x_stride, step;                /* rows that go together */
    size_t n_parts;
    int8_t *x, *lo;        /* [tokens][x_stride], dealt out; lo only with 15 bits */
    int32_t *sum, *lo_sum; /* [groups][tokens] twice the sum */
    float *scale;          /* [tokens] */
    eb_slots slots;        /* of a token while it is quantised, or of unpacked codes */
} task;

/* How many rows go together: as in the engine (products.c). */
static size_t rows_together(size_t tokens, size_t k) {
    if (tokens == 1)
        return EB_GEMV_ROWS;
    const int fits = k * (EB_GEMM_ROWS / 2) <= EB_CODES_BYTES;
    return tokens > EB_FEW_TOKENS && tokens <= EB_SOME_TOKENS && fits ? EB_GEMM_ROWS / 2 : EB_GEMM_ROWS;
}

/* Fills `t` in, with its scratch memory from `at` on; gives back where that ends. */
static uintptr_t lay_out(task *t, const eb_matmul *m, const eb_n2 *w, uintptr_t at) {
    *t = (task){.m = *m, .w = *w, .tiles = (m->rows + EB_TILE_ROWS - 1) / EB_TILE_ROWS};
    t->group_columns = m->columns / w->groups;
    t->group_k = eb_round_up(t->group_columns, 64);
    t->x_stride = w->groups * t->group_k;
    t->step = rows_together(m->tokens, t->x_stride);
    t->x = (int8_t *)eb_scratch_take(&at, m->tokens * t->x_stride);
    t->sum = (int32_t *)eb_scratch_take(&at, w->groups * m->tokens * sizeof *t->sum);
    if (w->is_i15) {
        t->lo = (int8_t *)eb_scratch_take(&at, m->tokens * t->x_stride);
        t->lo_sum = (int32_t *)eb_scratch_take(&at, w->groups * m->tokens * sizeof *t->lo_sum);
    }
    t->scale = (float *)eb_scratch_take(&at, m->tokens * sizeof *t->scale);
    const int few = m->tokens <= EB_FEW_TOKENS; /* tokens are quantised one after the other, and no codes unpacked */
    t->slots.size = t->x_stride * (few ? sizeof(float) + 2 : EB_GEMM_ROWS);
    const size_t fit = MOST_CODES_BYTES / t->slots.size;
    t->slots.n = few || !fit ? 1 : fit < EB_MOST_PARTS ? fit : EB_MOST_PARTS;
    t->slots.at = (unsigned char *)eb_scratch_take(&at, t->slots.n * t->slots.size);
    return at;
}

/* ---- activations ---- */

static void deal_out(int8_t *restrict to, const int8_t *restrict from) {
    uint32_t four[16];
    eb_memcpy(four, from, sizeof four);
    for (int field = 0; field < 4; field++)
        for (int p = 0; p < 16; p++)
            to[16 * field + p] = (int8_t)(four[p] >> 8 * field);
}

/* One plane of token `i`: all its groups, and twice the sum of each. */
static void put_plane(const task *t, size_t i, const int8_t *q, int8_t *plane, int32_t *sums) {
    int8_t *to = plane + i * t->x_stride;
    for (size_t group = 0; group < t->w.groups; group++, q += t->group_columns) {
        int32_t sum = 0;
        for (size_t c = 0; c < t->group_columns; c++)
            sum += q[c];
        sums[group * t->m.tokens + i] = 2 * sum;
        size_t c = 0;
        for (; c + 64 <= t->group_columns; c += 64, to += 64)
            deal_out(to, q + c);
        if (c < t->group_columns) {
            int8_t last[64] = {0};
            eb_memcpy(last, q + c, t->group_columns - c);
            deal_out(to, last);
            to += 64;
        }
    }
}

static void quantise_part(void *context, size_t number) {
    task *t = context;
    const eb_float_mode before = eb_float_mode_enter();
    float *room = eb_slot_take(&t->slots);
    int8_t *hi = (int8_t *)(room + t->x_stride), *lo = hi + t->x_stride;
    const size_t end = eb_part_begin(number + 1, t->n_parts, t->m.tokens);
    for (size_t i = eb_part_begin(number, t->n_parts, t->m.tokens); i < end; i++) {
        const float *row = eb_token_row(&t->m, i, room);
        int32_t sum;
        if (t->w.is_i15)
            t->m.kernels->quantise_i15(hi, lo, &t->scale[i], row, t->m.columns);
        else
            t->m.kernels->quantise_i8(hi, &t->scale[i], &sum, row, t->m.columns);
        put_plane(t, i, hi, t->x, t->sum);
        if (t->w.is_i15)
            put_plane(t, i, lo, t->lo, t->lo_sum);
    }
    eb_slot_give(&t->slots, room);
    eb_float_mode_leave(before);
}

/* ---- products ---- */

/* Some rows and tokens: n_rows from `row` on, n_tokens from `token` on. */
typedef struct block {
    size_t row, n_rows, token, n_tokens, stride;
    const uint8_t *codes; /* of the rows, all groups, unpacked; NULL where they are read packed */
} block;

static const uint8_t *packed(const task *t, size_t group, size_t row) {
    return t->w.codes + (group * t->tiles + row / EB_TILE_ROWS) * t->group_k;
}

static void gemv(const task *t, const block *b, size_t group, const int8_t *x, const int32_t *sum, int32_t *dots) {
    const eb_ukernels *kernels = t->m.kernels;
    const uint8_t *w = packed(t, group, b->row);
    const size_t rows = eb_round_up(b->n_rows, EB_TILE_ROWS);
    for (size_t i = 0; i < b->n_tokens;) {
        const size_t left = b->n_tokens - i, n = !kernels->gemv4_t2_i8 ? 1 : left < 4 ? left : 4;
        const int8_t *of = x + i * t->x_stride;
        int32_t *y = dots + i * b->stride;
        if (n == 1)
            kernels->gemv_t2_i8(y, w, of, sum[i], rows, t->group_k);
        else
            kernels->gemv4_t2_i8(&(eb_gemv4_operands){y, w, of, sum + i, b->stride, t->x_stride, rows, t->group_k}, n);
        i += n;
    }
}

/* Dot products of one plane of the activations, [n_tokens][stride]. */
static void products(const task *t, const block *b, size_t group, const int8_t *plane, const int32_t *sums,
                     int32_t *dots) {
    const int8_t *x = plane + b->token * t->x_stride + group * t->group_k;
    const int32_t *sum = sums + group * t->m.tokens + b->token;
    const size_t rows = eb_round_up(b->n_rows, EB_TILE_ROWS);
    if (!b->codes)
        gemv(t, b, group, x, sum, dots);
    else
        t->m.kernels->gemm_c8_i8(dots, b->stride, b->codes + group * rows * t->group_k, x, t->x_stride, sum, rows,
                                 t->group_k, b->n_tokens);
}

static void put_values(const task *t, const block *b) {
    int32_t dots[2][MOST_VALUES];
    float values[MOST_VALUES], scales[EB_GEMV_ROWS];
    char *out = (char *)t->m.y + (b->token * t->m.rows + b->row) * eb_float_size(t->m.kind);
    const int in_place = t->m.kind == EB_FLOAT32;
    float *y = in_place ? (float *)(void *)out : values;
    const size_t y_stride = in_place ? t->m.rows : b->stride;
    for (size_t group = 0; group < t->w.groups; group++) {
        products(t, b, group, t->x, t->sum, dots[0]);
        if (t->lo)
            products(t, b, group, t->lo, t->lo_sum, dots[1]);
        const size_t first = t->w.by_row ? group * t->m.rows + b->row : 0;
        eb_memcpy(scales, (const char *)t->w.scales + first * sizeof(float),
                  (t->w.by_row ? b->n_rows : 1) * sizeof(float));
        const eb_scaled_dots of = {.dots = dots[0],
                                   .stride = b->stride,
                                   .scales = scales,
                                   .by_row = t->w.by_row,
                                   .lo = t->lo ? dots[1] : NULL};
        t->m.kernels->scale_dots(y, y_stride, &of, t->scale + b->token, b->n_rows, b->n_tokens, group > 0);
    }
    if (!in_place)
        for (size_t i = 0; i < b->n_tokens; i++)
            eb_floats_store(out + i * t->m.rows * eb_float_size(t->m.kind), t->m.kind, values + i * b->stride,
                            b->n_rows);
}

/* The rows from `row` on, n_rows of them, with every token. */
static void put_rows(const task *t, size_t row, size_t n_rows, uint8_t *codes) {
    block b = {.row = row, .n_rows = n_rows, .stride = t->m.tokens == 1 ? EB_GEMV_ROWS : EB_GEMM_ROWS, .codes = codes};
    const size_t rows = eb_round_up(n_rows, EB_TILE_ROWS);
    for (size_t group = 0; codes && group < t->w.groups; group++)
        t->m.kernels->unpack_t2(codes + group * rows * t->group_k, packed(t, group, row), rows, t->group_k);
    for (; b.token < t->m.tokens; b.token += b.n_tokens) {
        const size_t left = t->m.tokens - b.token;
        b.n_tokens = left < BLOCK_TOKENS ? left : BLOCK_TOKENS;
        put_values(t, &b);
    }
}

/* In what the rows are split: tiles for one token, else as many rows as go together. */
static size_t unit(const task *t) { return t->m.tokens == 1 ? EB_TILE_ROWS : t->step; }

static void product_part(void *context, size_t number) {
    task *t = context;
    const eb_float_mode before = eb_float_mode_enter();
    const size_t rows = t->m.rows, units = (rows + unit(t) - 1) / unit(t);
    const size_t from = eb_part_begin(number, t->n_parts, units) * unit(t);
    const size_t to = eb_part_begin(number + 1, t->n_parts, units) * unit(t), end = to < rows ? to : rows;
    uint8_t *codes = t->m.tokens <= EB_FEW_TOKENS ? NULL : eb_slot_take(&t->slots);
    for (size_t row = from; row < end; row += t->step)
        put_rows(t, row, row + t->step < end ? t->step : end - row, codes);
    if (codes)
        eb_slot_give(&t->slots, codes);
    eb_float_mode_leave(before);
}

/* ---- the whole ---- */

static void run(task *t, eb_part_fn *part, size_t units, size_t bytes, size_t most) {
    const size_t n = eb_parts(units, bytes);
    t->n_parts = n < most ? n : most;
    t->m.parallel->run(t->m.parallel, part, t->n_parts, t);
}

size_t eb_ternary_scratch(const eb_matmul *m, const eb_n2 *w) {
    task t;
    return lay_out(&t, m, w, 0) + 64;
}

void eb_ternary_matmul(const eb_matmul *m, const eb_n2 *w, void *scratch) {
    task t;
    lay_out(&t, m, w, (uintptr_t)scratch);
    run(&t, quantise_part, m->tokens, m->tokens * m->columns * sizeof(float), t.slots.n);
    run(&t, product_part, (m->rows + unit(&t) - 1) / unit(&t), m->tokens * t.x_stride * t.tiles,
        m->tokens <= EB_FEW_TOKENS ? EB_MOST_PARTS : t.slots.n);
}
