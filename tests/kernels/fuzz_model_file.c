/* fuzz_model_file.c - any bytes for a model file: it must be refused, or run two tokens, without a fault.
 *
 * The mutator sets the sums right again, else no damage would ever get past them. Build with clang, -DEB_FUZZ=ON
 * -DEB_TESTS=ON -DEB_SANITIZE=address,undefined; run with a folder of model files: test_fuzz.py does. */
#include "crc32.h"
#include "mem.h"
#include "posix_host.h"

#include <string.h>

enum { HEADER = 64, ENTRY = 32, MAX_SECTIONS = 32 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void store_u32(uint8_t *to, uint32_t value) { memcpy(to, &value, sizeof value); }

static void correct_sums(uint8_t *data, size_t size) {
    if (size < HEADER)
        return;
    const uint64_t whole = size;
    memcpy(data + 16, &whole, sizeof whole);
    const uint32_t n = eb_load_u32(data + 12);
    if (n <= MAX_SECTIONS && HEADER + (size_t)n * ENTRY <= size) {
        for (uint32_t s = 0; s < n; s++) {
            uint8_t *entry = data + HEADER + s * ENTRY;
            const uint64_t offset = eb_load_u64(entry + 8), length = eb_load_u64(entry + 16);
            if (offset <= size && length <= size - offset)
                store_u32(entry + 4, eb_crc32(0, data + offset, length));
        }
        store_u32(data + 24, eb_crc32(0, data + HEADER, (size_t)n * ENTRY));
    }
    store_u32(data + 28, eb_crc32(0, data, 28));
}

/* One field of CONF, TENS or a table gets a telling number; or whatever the library's mutator thinks of. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    static const uint64_t telling[] = {0,
                                       1,
                                       2,
                                       3,
                                       63,
                                       64,
                                       65,
                                       128,
                                       0x7fffffff,
                                       0x80000000u,
                                       0xffffffffu,
                                       0xffffffc0u,
                                       UINT64_MAX,
                                       UINT64_MAX - 63,
                                       UINT64_C(1) << 63,
                                       UINT64_C(1) << 32};
    if (seed % 4 == 0 || size < 2048) {
        size = LLVMFuzzerMutate(data, size, max_size);
    } else {
        const size_t place = seed / 4 % 512 * 4; /* header, table, CONF and the first tensors */
        const uint64_t value = telling[seed / 2048 % (sizeof telling / sizeof telling[0])];
        memcpy(data + place, &value, seed & 1 ? 4 : 8);
    }
    if (seed % 16 != 15)
        correct_sums(data, size);
    return size;
}

enum { MAX_HIDDEN = 1024 };

static void run(const eb_model *model, uint32_t threads) {
    const eb_model_info *info = eb_model_get_info(model);
    const eb_engine_options options = {.size = sizeof options,
                                       .ctx_len = info->context_max < 8 ? info->context_max : 8,
                                       .n_threads = threads,
                                       .batch_len = 2};
    eb_engine *engine;
    eb_error error;
    if (eb_engine_open(model, &options, &engine, &error))
        return;
    const int32_t tokens[] = {0, (int32_t)info->vocab_size - 1};
    if (!eb_eval(engine, &(eb_batch){.n_tokens = options.ctx_len < 2 ? 1 : 2, .tokens = tokens})) {
        const eb_sampling sampling = {
            .size = sizeof sampling, .temperature = 1, .top_k = 5, .top_p = 0.9f, .repetition_penalty = 1.1f};
        eb_sampler *sampler;
        const eb_host host = eb_posix_host(NULL);
        if (!eb_sampler_open(&host, info->vocab_size, &sampling, &sampler, &error)) {
            const int32_t token = eb_sample(sampler, eb_logits(engine, 0));
            if (token < 0 || (uint32_t)token >= info->vocab_size)
                __builtin_trap();
            eb_sampler_close(sampler);
        }
    }
    float state[MAX_HIDDEN];
    eb_sequence_truncate(engine, 0, 0);
    eb_eval_states(engine, &(eb_batch){.n_tokens = 1, .tokens = tokens}, state);
    uint32_t n_probes;
    eb_sequence_truncate(engine, 0, 0);
    eb_probe_check(engine, &n_probes, &error);
    eb_engine_close(engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const eb_host host = eb_posix_host(NULL);
    uint8_t *aligned = aligned_alloc(64, (size + 64) / 64 * 64);
    memcpy(aligned, data, size);
    eb_model *model;
    eb_error error;
    if (eb_model_open_memory(&host, aligned, size, &model, &error) == EB_OK) {
        eb_model_verify(model, &error);
        const eb_model_info *info = eb_model_get_info(model);
        /* Sizes that a file of a few kilobytes can lie about without weights behind them: heads are one such. */
        if (info->hidden_size <= MAX_HIDDEN && info->n_heads * info->head_dim <= 4096 && info->vocab_size <= 4096)
            run(model, size % 2 + 1);
        eb_model_close(model);
    }
    free(aligned);
    return 0;
}
