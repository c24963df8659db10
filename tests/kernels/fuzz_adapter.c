/* fuzz_adapter.c - any bytes for an adapter file: it must be refused with words, or two tokens be computed with it, one at a
 * time and together to the same bits, without a fault.
 *
 * The mutator sets size and sums right again, else no damage would ever get past them. EB_FUZZ_MODEL names the model file.
 * Build as fuzz_model_file.c; test_fuzz.py runs it. */
#include "crc32.h"
#include "posix_host.h"

#include <stdio.h>
#include <string.h>

enum { HEADER = 128, ENTRY = 32, SIZE_AT = 16, CONTENT_SUM_AT = 120, HEADER_SUM_AT = 124 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "fuzz_adapter: %s\n", what);
        abort();
    }
}

static void correct(uint8_t *file, size_t size) {
    const uint64_t whole = size;
    memcpy(file + SIZE_AT, &whole, sizeof whole);
    uint32_t sum = eb_crc32(0, file + HEADER, size - HEADER);
    memcpy(file + CONTENT_SUM_AT, &sum, sizeof sum);
    sum = eb_crc32(0, file, HEADER_SUM_AT);
    memcpy(file + HEADER_SUM_AT, &sum, sizeof sum);
}

/* A field of the header or of the table gets a telling number; or whatever the library's mutator thinks of. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    static const uint32_t telling[] = {0,    1,          2,          3,          4,           7,          8,
                                       9,    12,         16,         17,         26,          64,         1024,
                                       1025, 0x10000000, 0x7f800000, 0x7fffffff, 0x80000000u, 0xffffffffu};
    const unsigned number = seed / 64;
    if (size < HEADER + ENTRY)
        return LLVMFuzzerMutate(data, size, max_size);
    if (seed % 4 == 0)
        size = LLVMFuzzerMutate(data, size, max_size);
    else if (seed % 4 == 1) {
        const size_t words = (size - HEADER) / 4, some = words < 32 ? words : 32;
        memcpy(data + HEADER + number / 32 % some * 4, &telling[number % 20], 4);
    } else if (seed % 4 == 2)
        memcpy(data + 8 + number / 32 % 28 * 4, &telling[number % 20], 4);
    else
        data[HEADER + number % (size - HEADER)] ^= (uint8_t)(1 << seed / 16 % 8);
    if (size >= HEADER && seed % 64 != 63)
        correct(data, size);
    return size;
}

static const eb_model *model(void) {
    static eb_model *opened;
    if (!opened) {
        const eb_host host = eb_posix_host(NULL);
        const char *path = getenv("EB_FUZZ_MODEL");
        eb_error error;
        require(path && eb_model_open(&host, path, 0, 0, &opened, &error) == EB_OK, "EB_FUZZ_MODEL cannot be opened");
    }
    return opened;
}

static void logits_of(eb_engine *engine, const eb_batch *batch, float *out) {
    require(eb_eval(engine, batch) == EB_OK, "tokens are not computed");
    memcpy(out, eb_logits(engine, 0), eb_model_get_info(model())->vocab_size * sizeof *out);
}

/* With the adapter on sequences 0 and 1: both tokens in one batch, and one after the other. */
static void compute(const eb_adapter *adapter) {
    const eb_engine_options options = {.size = sizeof options, .ctx_len = 4, .n_sequences = 2};
    static const int32_t tokens[2] = {1, 3};
    static const uint32_t second[1] = {1};
    float together[16], apart[16];
    eb_engine *engine;
    eb_error error;
    require(eb_engine_open(model(), &options, &engine, &error) == EB_OK, "an engine does not open");
    for (uint32_t sequence = 0; sequence < 2; sequence++)
        require(eb_sequence_set_adapter(engine, sequence, adapter) == EB_OK, "an adapter cannot be set");
    logits_of(engine, &(eb_batch){.n_tokens = 2, .tokens = tokens}, together);
    logits_of(engine, &(eb_batch){.n_tokens = 1, .tokens = tokens, .sequences = second}, apart);
    logits_of(engine, &(eb_batch){.n_tokens = 1, .tokens = tokens + 1, .sequences = second}, apart);
    require(!memcmp(together, apart, eb_model_get_info(model())->vocab_size * sizeof *apart), "the batch tells");
    eb_engine_close(engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const eb_model *const base = model();
    uint8_t *file = NULL; /* of its exact size, for the address sanitizer */
    require(!posix_memalign((void **)&file, 64, size + !size), "no memory");
    memcpy(file, data, size);
    eb_error error = {""};
    eb_adapter *adapter = NULL;
    const eb_status status = eb_adapter_open(base, file, size, &adapter, &error);
    require((status == EB_OK) == (adapter != NULL) && (!status || error.text[0]), "a refusal says nothing");
    if (adapter)
        compute(adapter);
    eb_adapter_close(adapter);
    free(file);
    return 0;
}
