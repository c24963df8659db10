/* engine_head.c - the head: all logits of a token, or only those that can be among the best.
 *
 * The head's int8 rows lie in three planes (layout h8): with u = code + 128 = 16 high + 4 middle + low,
 *   code . q = (16 high . q - 128 sum q) + 4 middle . q + low . q
 * Of all rows only the high plane is read. What it leaves out is bounded by the inequality of Cauchy and Schwarz: 2 (4
 * middle + low) . q differs from 15 sum q by at most |2 (4 middle + low) - 15| |q|, and the file has the first length of
 * each row. The rows that look best are computed whole; the least of their logits is what the others must reach. A row
 * whose upper bound does not is passed over, one whose bound does is read further: the middle plane, a second bound, and
 * the low plane. So the best logits are those of the whole int8 head, to the last bit.
 *
 * A bound is rigorous in floats too: it is an integer, at least the true one, which goes through the same operations as
 * the true one, and those never fall. */
#include "job.h"
#include "mem.h"
#include "ops.h"

/* A dot product's bounds are kept below this, so that sums with it cannot overflow whatever a damaged file says. */
#define WIDEST 0x1p60

/* ---- what is wanted ---- */

/* The final hidden state of wanted token `i`: [hidden_size], filled up with zeros. */
static const float *final_state(eb_engine *engine, size_t i) {
    float *normed = engine->chunk.normed + i * engine->widest_stride;
    engine->kernels.rmsnorm(normed, engine->chunk.hidden + engine->wanted.token[i] * engine->hidden_stride,
                            engine->model->tensor[EB_FINAL_NORM].values, engine->model->info.hidden_size,
                            engine->model->config.rms_norm_eps);
    return normed;
}

static void states_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const size_t n = engine->model->info.hidden_size;
    const range tokens = share(me, wanted->n, 1);
    for (size_t i = tokens.begin; i < tokens.end; i++)
        eb_memcpy(wanted->states + (wanted->first_row + i) * n, final_state(engine, i), n * sizeof(float));
}

static void quantise_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const size_t n = engine->model->info.hidden_size, k = engine->head_k;
    const range tokens = share(me, wanted->n, 1);
    for (size_t i = tokens.begin; i < tokens.end; i++) {
        const float *normed = final_state(engine, i);
        int8_t *hi = wanted->hi + i * k, *lo = wanted->lo + i * k;
        engine->kernels.quantise_i15(hi, lo, &wanted->scale[i], normed, n);
        eb_memset(hi + engine->hidden_stride, 0, k - engine->hidden_stride);
        eb_memset(lo + engine->hidden_stride, 0, k - engine->hidden_stride);
        int64_t sum = 0, squares = 0;
        for (size_t c = 0; c < n; c++) {
            const int32_t q = 128 * hi[c] + lo[c];
            sum += q;
            squares += (int64_t)q * q;
        }
        wanted->sum[i] = sum;
        wanted->length[i] = __builtin_sqrt((double)squares) * (1 + 0x1p-40);
    }
}

/* ---- one row and one token ---- */

typedef struct scored {
    const eb_tensor *head;
    eb_head_planes planes;
    eb_ukernels kernels;
    eb_i15 x;
    int64_t sum;   /* of q */
    double length; /* of q, or a little more */
    float x_scale;
    const uint32_t *allowed; /* set of rows, or NULL: all */
} scored;

static scored scored_by(const eb_engine *engine, uint32_t i) {
    const eb_wanted *wanted = &engine->wanted;
    const eb_tensor *head = &engine->model->tensor[EB_HEAD];
    const size_t k = engine->head_k;
    return (scored){.head = head,
                    .planes = eb_planes_of(head),
                    .kernels = engine->kernels,
                    .x = {wanted->hi + i * k, wanted->lo + i * k},
                    .sum = wanted->sum[i],
                    .length = wanted->length[i],
                    .x_scale = wanted->scale[i],
                    .allowed = wanted->allowed ? wanted->allowed[i] : NULL};
}

static float logit(const scored *s, size_t row, int64_t dot) {
    return (float)dot * (s->head->scales[row] * s->x_scale);
}

static int64_t plane_dot(const scored *s, const uint8_t *plane, size_t row) {
    return s->kernels.dot_l2_i15(plane + row * (s->head->k / 4), &s->x, s->head->k);
}

static int is_allowed(const scored *s, size_t row) { return !s->allowed || s->allowed[row >> 5] >> (row & 31) & 1; }

static int is_tile_allowed(const scored *s, size_t row) {
    return !s->allowed || s->allowed[row >> 5] >> (row & 31) & ((1u << EB_TILE_ROWS) - 1);
}

/* Dot products with the high plane of rows begin .. end - 1, at most EB_HEAD_ROWS; those of tiles without a row that is
 * allowed are left out. */
static void high_dots(const scored *s, size_t begin, size_t end, int64_t *dots) {
    for (size_t row = begin, next; row < end; row = next + EB_TILE_ROWS) {
        for (next = row; next < end && is_tile_allowed(s, next);)
            next += EB_TILE_ROWS;
        if (next > row)
            s->kernels.gemv_h4_i15(dots + (row - begin), s->planes.high + row / EB_TILE_ROWS * s->head->band_bytes,
                                   &s->x, next - row, s->head->k);
    }
}

/* What the dot product is after the high plane, without the rest. */
static int64_t after_high(const scored *s, int64_t high) { return 16 * high - 128 * s->sum; }

static int64_t after_middle(const scored *s, size_t row, int64_t dot) {
    return dot + 4 * plane_dot(s, s->planes.middle, row);
}

static int64_t after_low(const scored *s, size_t row, int64_t dot) { return dot + plane_dot(s, s->planes.low, row); }

/* The logit, from the dot product after the high plane. */
static float whole(const scored *s, size_t row, int64_t dot) {
    return logit(s, row, after_low(s, row, after_middle(s, row, dot)));
}

/* The highest logit that the row can have, if twice the rest differs from `middle` by at most bound * |q|. */
static float highest(const scored *s, size_t row, int64_t dot, int64_t middle, float bound) {
    double width = (double)bound * s->length + 1;
    if (!(width >= 0 && width < WIDEST))
        width = WIDEST;
    const int64_t way = s->head->scales[row] * s->x_scale < 0 ? -(int64_t)width : (int64_t)width;
    return logit(s, row, (2 * dot + middle + way) >> 1);
}

/* ---- all logits ---- */

static void full_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const eb_tensor *head = &engine->model->tensor[EB_HEAD];
    const range rows = share(me, head->rows, EB_TILE_ROWS);
    int64_t *dots = engine->dots64 + me.thread * EB_HEAD_ROWS;
    for (size_t begin = rows.begin; begin < rows.end; begin += EB_HEAD_ROWS) {
        const size_t end = begin + EB_HEAD_ROWS < rows.end ? begin + EB_HEAD_ROWS : rows.end;
        for (uint32_t i = 0; i < wanted->n; i++) {
            const scored s = scored_by(engine, i);
            float *logits = engine->logits + (size_t)(wanted->first_row + i) * head->rows;
            high_dots(&s, begin, end, dots);
            for (size_t row = begin; row < end; row++)
                logits[row] =
                    is_allowed(&s, row) ? whole(&s, row, after_high(&s, dots[row - begin])) : -__builtin_inff();
        }
    }
}

/* ---- the best logits: EB_BEST_TOKENS tokens at a time ---- */

/* Tokens pass_first .. of the wanted ones: their dot products after the high plane, and the logits' middle values. */
static void high_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const eb_tensor *head = &engine->model->tensor[EB_HEAD];
    const range rows = share(me, head->rows, EB_TILE_ROWS);
    int64_t *dots = engine->dots64 + me.thread * EB_HEAD_ROWS;
    for (size_t begin = rows.begin; begin < rows.end; begin += EB_HEAD_ROWS) {
        const size_t end = begin + EB_HEAD_ROWS < rows.end ? begin + EB_HEAD_ROWS : rows.end;
        for (uint32_t t = 0; t < wanted->pass_n; t++) {
            const scored s = scored_by(engine, wanted->pass_first + t);
            float *logits = engine->logits + (size_t)(wanted->first_row + wanted->pass_first + t) * head->rows;
            int64_t *after = engine->high_dots + (size_t)t * head->rows;
            high_dots(&s, begin, end, dots);
            for (size_t row = begin; row < end; row++) {
                logits[row] = -__builtin_inff();
                if (!is_allowed(&s, row))
                    continue;
                after[row] = after_high(&s, dots[row - begin]);
                logits[row] = logit(&s, row, after[row] + 15 * s.sum / 2);
            }
        }
    }
}

/* Moves heap[at] down to its place in a heap of rows with the lowest logit on top. */
static void sink(uint32_t *heap, size_t n, size_t at, const float *logits) {
    const uint32_t moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && logits[heap[child + 1]] < logits[heap[child]])
            child++;
        if (!(logits[heap[child]] < logits[moved]))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* Computes the n_best rows with the highest middle values whole; gives back the least of their logits, -infinity where fewer
 * are allowed. */
static float reach(const scored *s, const int64_t *after, const float *logits, uint32_t *heap, uint32_t n_best) {
    for (uint32_t row = 0; row < n_best; row++)
        heap[row] = row;
    for (uint32_t at = n_best / 2; at-- > 0;)
        sink(heap, n_best, at, logits);
    for (uint32_t row = n_best; row < s->head->rows; row++)
        if (logits[row] > logits[heap[0]]) {
            heap[0] = row;
            sink(heap, n_best, 0, logits);
        }
    float least = __builtin_inff();
    for (uint32_t i = 0; i < n_best; i++) {
        const uint32_t row = heap[i];
        const float found = is_allowed(s, row) ? whole(s, row, after[row]) : -__builtin_inff();
        if (!(found >= least)) /* what is not a number, of a damaged file, rules no row out */
            least = found == found ? found : -__builtin_inff();
    }
    return least;
}

static void reach_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const uint32_t rows = engine->model->tensor[EB_HEAD].rows;
    const range tokens = share(me, wanted->pass_n, 1);
    for (size_t t = tokens.begin; t < tokens.end; t++) {
        const scored s = scored_by(engine, wanted->pass_first + (uint32_t)t);
        const float *logits = engine->logits + (wanted->first_row + wanted->pass_first + t) * rows;
        wanted->least[t] =
            reach(&s, engine->high_dots + t * rows, logits, engine->best + t * EB_MAX_BEST, wanted->n_best);
    }
}

/* Which of the rows begin .. end - 1, at most EB_HEAD_ROWS, may reach `least` for all that their high plane says. In plain
 * floats, a vector at a time, and so with a hundred times the room that their rounding takes: it lets some rows through that
 * highest() would not, and never the other way round. What is not a number is let through. */
static void may_reach(uint8_t *may, const scored *s, const float *middles, size_t begin, size_t end, float least) {
    const float half_length = (float)(s->length * 0.50001), x_scale = s->x_scale * 1.00001f;
    const float *bounds = s->planes.high_bounds, *scales = s->head->scales;
    for (size_t row = begin; row < end; row++) {
        const float factor = __builtin_fabsf(scales[row] * x_scale);
        const float most =
            middles[row] + 1e-5f * __builtin_fabsf(middles[row]) + factor * (bounds[row] * half_length + 2);
        may[row - begin] = !(most < least);
    }
}

/* The logit of a row that may reach `least`; -infinity where reading further shows that it does not. */
static float rescored(const scored *s, size_t row, int64_t dot, float least, uint64_t n_read[2]) {
    if (highest(s, row, dot, 15 * s->sum, s->planes.high_bounds[row]) < least)
        return -__builtin_inff();
    n_read[0]++;
    dot = after_middle(s, row, dot);
    if (highest(s, row, dot, 3 * s->sum, s->planes.middle_bounds[row]) < least)
        return -__builtin_inff();
    n_read[1]++;
    return logit(s, row, after_low(s, row, dot));
}

/* Reads further where a row may reach the best; the others' logits become -infinity. */
static void rescore_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const size_t n_rows = engine->model->tensor[EB_HEAD].rows;
    const range rows = share(me, n_rows, EB_TILE_ROWS);
    uint64_t n_read[2] = {0};
    for (size_t begin = rows.begin; begin < rows.end; begin += EB_HEAD_ROWS) {
        const size_t end = begin + EB_HEAD_ROWS < rows.end ? begin + EB_HEAD_ROWS : rows.end;
        for (uint32_t t = 0; t < wanted->pass_n; t++) {
            const scored s = scored_by(engine, wanted->pass_first + t);
            float *logits = engine->logits + (wanted->first_row + wanted->pass_first + t) * n_rows;
            const int64_t *after = engine->high_dots + t * n_rows;
            const float least = wanted->least[t];
            uint8_t may[EB_HEAD_ROWS];
            may_reach(may, &s, logits, begin, end, least);
            for (size_t row = begin; row < end; row++)
                logits[row] = may[row - begin] && is_allowed(&s, row) ? rescored(&s, row, after[row], least, n_read)
                                                                      : -__builtin_inff();
        }
    }
    __atomic_fetch_add(&engine->stats.head_middle_rows, n_read[0], __ATOMIC_RELAXED);
    __atomic_fetch_add(&engine->stats.head_low_rows, n_read[1], __ATOMIC_RELAXED);
}

void eb_run_head(eb_engine *engine) {
    eb_wanted *wanted = &engine->wanted;
    const eb_tensor *head = &engine->model->tensor[EB_HEAD];
    const int is_large = head->row_bytes * head->rows >= PARALLEL_BYTES;
    job task = {.engine = engine};
    if (wanted->states) {
        run(&task, states_job, wanted->n > 1);
        return;
    }
    run(&task, quantise_job, wanted->n > 1);
    if (!wanted->n_best || wanted->n_best >= head->rows) {
        run(&task, full_job, is_large);
        return;
    }
    for (wanted->pass_first = 0; wanted->pass_first < wanted->n; wanted->pass_first += EB_BEST_TOKENS) {
        const uint32_t left = wanted->n - wanted->pass_first;
        wanted->pass_n = left < EB_BEST_TOKENS ? left : EB_BEST_TOKENS;
        run(&task, high_job, is_large);
        run(&task, reach_job, wanted->pass_n > 1);
        run(&task, rescore_job, is_large);
    }
    engine->stats.head_tokens += wanted->n;
}
