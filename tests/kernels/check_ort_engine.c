/* check_ort_engine.c - TernaryMatMul gives the bits that the engine's own projections give: the same weights in layout t2
 * and in layout n2, the same activations, eb_put_inputs() and eb_linear() on one side, eb_ternary_matmul() on the other. */
#include "cpu.h"
#include "job.h"
#include "matmul.h"
#include "ops.h"
#include "posix_host.h"
#include "products.h"

#include <stdio.h>
#include <string.h>

enum { MOST_TOKENS = 40, MOST_ROWS = 300, MOST_COLUMNS = 1024 };

static uint32_t next_random(void) {
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

static int8_t weights[MOST_ROWS][MOST_COLUMNS];
static float x[MOST_TOKENS][MOST_COLUMNS], scales[4 * MOST_ROWS];
static float engines[MOST_TOKENS * MOST_ROWS], operators[MOST_TOKENS * MOST_ROWS];

/* Codes of `rows` rows: [groups][tiles][chunks][4][16], as layout t2 or n2 has the columns of a chunk, weight + `plus`. */
static void pack(uint8_t *codes, size_t rows, size_t columns, size_t groups, int is_n2, int plus) {
    const size_t k = columns / groups, chunks = k / 64, tiles = (rows + 3) / 4;
    memset(codes, 0, groups * tiles * k);
    for (size_t n = 0; n < tiles * 4; n++)
        for (size_t c = 0; c < columns; c++) {
            const size_t at = c % 64, byte = is_n2 ? at / 4 : at % 16, field = is_n2 ? at % 4 : at / 16;
            const size_t tile = (c / k * tiles + n / 4) * chunks + c % k / 64;
            codes[tile * 64 + n % 4 * 16 + byte] |= (uint8_t)((n < rows ? weights[n][c] + plus : plus) << 2 * field);
        }
}

static eb_engine engine;
static eb_model model;
static eb_layer layer;

static void *room(size_t bytes) {
    void *made = calloc(1, bytes);
    if (!made)
        abort();
    return made;
}

static void prepare_engine(const eb_ukernels *kernels) {
    engine = (eb_engine){.model = &model, .kernels = *kernels, .n_threads = 1, .batch_len = MOST_TOKENS};
    engine.widest_stride = MOST_COLUMNS;
    engine.dots_size = MOST_TOKENS * EB_GEMM_ROWS;
    engine.dots = room(2 * engine.dots_size * sizeof *engine.dots);
    engine.values = room(2 * engine.dots_size * sizeof *engine.values);
    engine.codes = room(EB_GEMM_ROWS * MOST_COLUMNS);
    eb_input *input = &engine.chunk.input[0];
    input->x = room(MOST_TOKENS * MOST_COLUMNS);
    input->scale = room(MOST_TOKENS * sizeof *input->scale);
    input->sum = room(4 * MOST_TOKENS * sizeof *input->sum);
    input->lo_sum = room(4 * MOST_TOKENS * sizeof *input->lo_sum);
}

static void project(const uint8_t *t2, size_t rows, size_t columns, size_t groups, size_t tokens, int is_i15) {
    const uint32_t k = (uint32_t)(columns / groups);
    static int8_t lo[MOST_TOKENS * MOST_COLUMNS];
    model.config.quantisation = is_i15 ? EB_INT15 : EB_INT8;
    engine.chunk.input[0].lo = is_i15 ? lo : NULL;
    engine.max_groups = (uint32_t)groups;
    engine.chunk.n = (uint32_t)tokens;
    layer.tensor[EB_Q_PROJ] = (eb_tensor){.values = t2,
                                          .scales = scales,
                                          .encoding = EB_T2,
                                          .granularity = groups > 1 ? EB_BY_GROUP : EB_BY_ROW,
                                          .rows = (uint32_t)rows,
                                          .columns = (uint32_t)columns,
                                          .n_groups = (uint32_t)groups,
                                          .k = k,
                                          .row_bytes = k / 4,
                                          .band_bytes = k};
    const eb_reader reader = {EB_Q_PROJ, 0};
    for (uint32_t b = 0; b < tokens; b++)
        eb_put_inputs(&engine, &layer, &reader, 1, b, x[b], columns);
    eb_linear(&engine, &layer.tensor[EB_Q_PROJ], &engine.chunk.input[0], engines, rows, 0, (part){0, 1, 0});
}

static void run_parts(const eb_parallel *self, eb_part_fn *one, size_t n, void *task) {
    (void)self;
    for (size_t i = 0; i < n; i++)
        one(task, i);
}

static void multiply(const uint8_t *n2, size_t rows, size_t columns, size_t groups, size_t tokens, int is_i15) {
    static float dense[MOST_TOKENS * MOST_COLUMNS];
    const eb_parallel here = {run_parts};
    for (size_t t = 0; t < tokens; t++)
        memcpy(dense + t * columns, x[t], columns * sizeof(float));
    const eb_matmul m = {&engine.kernels, &here, dense, operators, EB_FLOAT32, tokens, rows, columns};
    const eb_n2 w = {n2, scales, groups, 1, is_i15};
    void *scratch = room(eb_ternary_scratch(&m, &w));
    eb_ternary_matmul(&m, &w, scratch);
    free(scratch);
}

static int check(size_t rows, size_t columns, size_t groups, size_t tokens, int is_i15) {
    static uint8_t t2[MOST_ROWS * MOST_COLUMNS / 4], n2[MOST_ROWS * MOST_COLUMNS / 4];
    for (size_t n = 0; n < rows; n++)
        for (size_t c = 0; c < columns; c++)
            weights[n][c] = (int8_t)((int)(next_random() % 3) - 1);
    for (size_t t = 0; t < tokens; t++)
        for (size_t c = 0; c < columns; c++)
            x[t][c] = (float)next_random() / (float)(1u << 28) - 4;
    for (size_t i = 0; i < groups * rows; i++)
        scales[i] = (float)(next_random() % 1000 + 1) / 997;
    pack(t2, rows, columns, groups, 0, 1);
    pack(n2, rows, columns, groups, 1, 2);
    project(t2, rows, columns, groups, tokens, is_i15);
    multiply(n2, rows, columns, groups, tokens, is_i15);
    if (!memcmp(engines, operators, tokens * rows * sizeof(float)))
        return 0;
    printf("rows %zu, columns %zu, groups %zu, tokens %zu, i15 %d: the operator differs from the engine\n", rows,
           columns, groups, tokens, is_i15);
    return 1;
}

int main(void) {
    static const size_t shapes[][3] = {{300, 1024, 1}, {37, 256, 1}, {64, 512, 2}, {50, 768, 4}, {1, 64, 1}};
    const eb_host host = eb_posix_host(getenv("EDGEBIT_ISA"));
    eb_error error;
    eb_isa isa;
    if (eb_isa_choose(&host, &isa, &error)) {
        printf("%s\n", error.text);
        return 2;
    }
    const eb_ukernels kernels = eb_dispatch(isa.features);
    prepare_engine(&kernels);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t tokens = 1; tokens <= MOST_TOKENS; tokens += tokens < 9 ? 1 : 31)
            for (int is_i15 = 0; is_i15 < 2; is_i15++)
                if (check(shapes[i][0], shapes[i][1], shapes[i][2], tokens, is_i15))
                    return 1;
    printf("projections have the engine's bits (%s)\n", isa.name);
    free(engine.dots), free(engine.values), free(engine.codes);
    free(engine.chunk.input[0].x), free(engine.chunk.input[0].scale);
    free(engine.chunk.input[0].sum), free(engine.chunk.input[0].lo_sum);
    return 0;
}
