/* fuzz_sequence.c - any bytes for the state of a sequence: it must be refused, and the sequence be as before, or be
 * computed on with, without a fault.
 *
 * The mutator sets the sums right again, else no damage would ever get past them. An input is: one byte for the KV
 * type, one for the tokens that the sequence holds, one for how many are wanted, and the state. EB_FUZZ_MODEL names a
 * model file. Build as fuzz_model_file.c; test_fuzz.py runs it. */
#include "crc32.h"
#include "mem.h"
#include "posix_host.h"

#include <stdio.h>
#include <string.h>

enum { OPTIONS = 3, STATE_HEADER = 64, CONTEXT = 48, HELD_MOST = CONTEXT - 1 };
enum { TARGET, SOURCE, SECOND, N_SEQUENCES };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "fuzz_sequence: %s\n", what);
        abort();
    }
}

static void store_u32(uint8_t *to, uint32_t value) { memcpy(to, &value, sizeof value); }

static void correct_sums(uint8_t *state, size_t size) {
    store_u32(state + 40, eb_crc32(0, state + STATE_HEADER, size - STATE_HEADER));
    store_u32(state + 60, eb_crc32(0, state, 60));
}

/* An option or a field of the header gets a telling number; or whatever the library's mutator thinks of. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    static const uint64_t telling[] = {0,  1,  2,  3,   15,         16,          17,          32,
                                       47, 48, 49, 300, 0x7fffffff, 0xfffffff0u, 0xffffffffu, UINT64_MAX};
    const unsigned number = seed / 64;
    const uint64_t value = telling[number % (sizeof telling / sizeof telling[0])];
    if (seed % 4 == 0 || size < OPTIONS + STATE_HEADER)
        size = LLVMFuzzerMutate(data, size, max_size);
    else if (seed % 4 == 1)
        data[number / 16 % OPTIONS] = (uint8_t)value;
    else if (seed % 4 == 2)
        memcpy(data + OPTIONS + number / 16 % 14 * 4, &value, 4);
    else
        data[OPTIONS + number % (size - OPTIONS)] ^= (uint8_t)(1 << seed / 16 % 8);
    if (size < OPTIONS + STATE_HEADER)
        return size;
    if (seed / 4 % 4) {
        const uint64_t whole = size - OPTIONS;
        memcpy(data + OPTIONS + 32, &whole, sizeof whole);
    }
    if (seed % 64 != 63)
        correct_sums(data + OPTIONS, size - OPTIONS);
    return size;
}

/* An engine whose sequence SOURCE holds HELD_MOST tokens. */
static eb_engine *open_engine(const eb_model *model, uint32_t kv_type) {
    const eb_engine_options options = {
        .size = sizeof options, .ctx_len = CONTEXT, .n_sequences = N_SEQUENCES, .kv_type = kv_type};
    eb_engine *engine;
    eb_error error;
    require(eb_engine_open(model, &options, &engine, &error) == EB_OK, "an engine does not open");
    int32_t tokens[HELD_MOST];
    uint32_t sequences[HELD_MOST];
    for (int i = 0; i < HELD_MOST; i++) {
        tokens[i] = (int32_t)((uint32_t)i * 5 % eb_model_get_info(model)->vocab_size);
        sequences[i] = SOURCE;
    }
    require(eb_eval(engine, &(eb_batch){.n_tokens = HELD_MOST, .tokens = tokens, .sequences = sequences}) == EB_OK,
            "the first tokens are not computed");
    return engine;
}

/* Saved again and loaded elsewhere, it is the same to the bit, as far as it was used. */
static void check_round_trip(eb_engine *engine, uint32_t begin, uint32_t end) {
    size_t size = 0, again = 0;
    require(eb_sequence_save(engine, TARGET, begin, end, NULL, 0, &size) == EB_LIMIT, "no size of a state");
    uint8_t *first = malloc(size), *second = malloc(size);
    require(eb_sequence_save(engine, TARGET, begin, end, first, size, &again) == EB_OK && again == size,
            "what was loaded is not saved");
    require(eb_sequence_copy(engine, TARGET, SECOND, begin) == EB_OK, "a sequence is not copied");
    require(eb_sequence_load(engine, SECOND, end - begin, first, size) == EB_OK, "what was saved is refused");
    require(eb_sequence_save(engine, SECOND, begin, end, second, size, &again) == EB_OK, "it is not saved again");
    require(memcmp(first, second, size) == 0, "a state changes on its way");
    free(first);
    free(second);
}

static void compute(eb_engine *engine, uint32_t length) {
    const int32_t token = 1;
    const eb_batch batch = {.n_tokens = 1, .tokens = &token}; /* TARGET is sequence 0 */
    const eb_status status = eb_eval(engine, &batch);
    require(length < CONTEXT ? status == EB_OK : status == EB_LIMIT, "the next token");
}

static const char *path(void) {
    const char *given = getenv("EB_FUZZ_MODEL");
    require(given != NULL, "EB_FUZZ_MODEL names no model file");
    return given;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static eb_engine *engines[2];
    if (!engines[0]) {
        const eb_host host = eb_posix_host(NULL);
        eb_model *model;
        eb_error error;
        require(eb_model_open(&host, path(), 0, 0, &model, &error) == EB_OK, "EB_FUZZ_MODEL cannot be opened");
        engines[0] = open_engine(model, EB_KV_F16);
        engines[1] = open_engine(model, EB_KV_I8);
    }
    if (size < OPTIONS)
        return 0;
    eb_engine *engine = engines[data[0] & 1];
    const uint32_t held = data[1] % (HELD_MOST + 1), wanted = data[2];
    const size_t state_size = size - OPTIONS;
    uint8_t *state = malloc(state_size + !state_size); /* of its exact size, for the address sanitizer */
    memcpy(state, data + OPTIONS, state_size);

    require(eb_sequence_copy(engine, SOURCE, TARGET, held) == EB_OK, "a sequence is not copied");
    const eb_status status = eb_sequence_load(engine, TARGET, wanted, state, state_size);
    const uint32_t length = eb_sequence_length(engine, TARGET);
    require(length == (status ? held : held + wanted), "the length is not what the status says");
    require(!status || eb_engine_error(engine)[0], "a refusal says nothing");
    if (!status)
        check_round_trip(engine, held, length);
    compute(engine, length);
    free(state);
    return 0;
}
