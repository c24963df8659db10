/* probe.c - golden probes: what a model must compute on any device, to the last bit. */
#include "crc32.h"
#include "engine.h"
#include "mem.h"
#include "status.h"

enum { MAX_PROBE_TOKENS = 4096 };

#define FAIL(status, ...) EB_FAIL(error, status, __VA_ARGS__)

/* The id of the highest logit; the lowest id wins a tie. */
static int32_t highest(const float *logits, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

static eb_status run(eb_engine *engine, const int32_t *prompt, uint32_t n_prompt, uint32_t *layer_crc,
                     uint32_t *logits_crc, int32_t *greedy, uint32_t n_greedy) {
    const uint32_t vocab = engine->model->info.vocab_size;
    engine->trace = layer_crc;
    eb_status status = eb_eval(engine, &(eb_batch){.n_tokens = n_prompt, .tokens = prompt});
    engine->trace = NULL;
    if (status)
        return status;
    if (logits_crc)
        *logits_crc = eb_crc32(0, eb_logits(engine, 0), vocab * sizeof(float));
    for (uint32_t i = 0; i < n_greedy; i++) {
        greedy[i] = highest(eb_logits(engine, 0), vocab);
        if (i + 1 < n_greedy && (status = eb_eval(engine, &(eb_batch){.n_tokens = 1, .tokens = &greedy[i]})))
            return status;
    }
    return EB_OK;
}

eb_status eb_probe_run(eb_engine *engine, const int32_t *prompt, uint32_t n_prompt, uint32_t *layer_crc,
                       uint32_t *logits_crc, int32_t *greedy, uint32_t n_greedy) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (!prompt || !n_prompt || (n_greedy && !greedy)) {
        eb_fail(&engine->error, "eb_probe_run: no prompt, or no room for the greedy tokens");
        return EB_BAD_ARGUMENT;
    }
    if (engine->kv.type != EB_KV_F16) {
        eb_fail(&engine->error,
                "golden probes are defined for a KV cache of f16, and this engine has another: open one "
                "with f16 for them");
        return EB_BAD_ARGUMENT;
    }
    if (engine->length[0]) {
        eb_fail(&engine->error, "eb_probe_run: sequence 0 is not empty");
        return EB_BAD_ARGUMENT;
    }
    const eb_adapter *const adapter = engine->adapting.of_sequence[0];
    engine->adapting.of_sequence[0] = NULL;
    const eb_status status = run(engine, prompt, n_prompt, layer_crc, logits_crc, greedy, n_greedy);
    engine->adapting.of_sequence[0] = adapter;
    engine->length[0] = 0;
    return status;
}

/* ---- section PROB ---- */

/* One probe as it lies in the file, at no alignment. */
typedef struct probe {
    uint32_t n_prompt, n_greedy, n_crc, logits_crc;
    const unsigned char *prompt, *greedy, *crc;
} probe;

typedef struct reader {
    const unsigned char *at;
    uint64_t left;
} reader;

static const unsigned char *take(reader *from, uint64_t size) {
    if (from->left < size)
        return NULL;
    const unsigned char *taken = from->at;
    from->at += size;
    from->left -= size;
    return taken;
}

static eb_status read_probe(const eb_model *model, reader *from, uint32_t number, probe *out, eb_error *error) {
    const unsigned char *head = take(from, 16);
    if (!head)
        FAIL(EB_BAD_FORMAT, "%s: section PROB ends inside probe %u", model->name, number);
    *out = (probe){eb_load_u32(head), eb_load_u32(head + 4), eb_load_u32(head + 8), eb_load_u32(head + 12), 0, 0, 0};
    if (out->n_prompt < 1 || out->n_prompt > MAX_PROBE_TOKENS || out->n_greedy > MAX_PROBE_TOKENS)
        FAIL(EB_BAD_FORMAT, "%s: PROB: probe %u has %u prompt and %u greedy tokens; there can be 1 and 0 to %d",
             model->name, number, out->n_prompt, out->n_greedy, MAX_PROBE_TOKENS);
    if (out->n_crc != model->info.n_layers + 1)
        FAIL(EB_BAD_FORMAT, "%s: PROB: probe %u has %u layer sums; the model needs %u", model->name, number, out->n_crc,
             model->info.n_layers + 1);
    out->prompt = take(from, 4 * (uint64_t)out->n_prompt);
    out->greedy = take(from, 4 * (uint64_t)out->n_greedy);
    out->crc = take(from, 4 * (uint64_t)out->n_crc);
    if (!out->prompt || !out->greedy || !out->crc)
        FAIL(EB_BAD_FORMAT, "%s: section PROB ends inside probe %u", model->name, number);
    return EB_OK;
}

static eb_status check_probe(eb_engine *engine, const probe *wanted, uint32_t number, uint32_t *layer_crc,
                             int32_t *tokens, eb_error *error) {
    const char *name = engine->model->name;
    int32_t *greedy = tokens + wanted->n_prompt;
    uint32_t logits_crc;
    for (uint32_t i = 0; i < wanted->n_prompt; i++)
        tokens[i] = eb_load_i32(wanted->prompt + 4 * (size_t)i);
    const eb_status status =
        eb_probe_run(engine, tokens, wanted->n_prompt, layer_crc, &logits_crc, greedy, wanted->n_greedy);
    if (status)
        FAIL(status, "%s: golden probe %u: %s", name, number, engine->error.text);
    for (uint32_t i = 0; i < wanted->n_crc; i++)
        if (layer_crc[i] != eb_load_u32(wanted->crc + 4 * (size_t)i)) {
            if (i == 0)
                FAIL(EB_MISMATCH, "%s: golden probe %u: the embedding differs (%s)", name, number, engine->isa);
            FAIL(EB_MISMATCH,
                 "%s: golden probe %u: layer %u differs: this device computes wrongly (%s), "
                 "or the file is damaged, which verify tells",
                 name, number, i - 1, engine->isa);
        }
    if (logits_crc != wanted->logits_crc)
        FAIL(EB_MISMATCH, "%s: golden probe %u: the logits differ, the layers do not (%s)", name, number, engine->isa);
    for (uint32_t i = 0; i < wanted->n_greedy; i++)
        if (greedy[i] != eb_load_i32(wanted->greedy + 4 * (size_t)i))
            FAIL(EB_MISMATCH, "%s: golden probe %u: greedy token %u is %d, the file promises %d (%s)", name, number, i,
                 greedy[i], eb_load_i32(wanted->greedy + 4 * (size_t)i), engine->isa);
    return EB_OK;
}

static eb_status check_all(eb_engine *engine, uint32_t *n_probes, uint32_t *layer_crc, int32_t *tokens,
                           eb_error *error) {
    const eb_model *model = engine->model;
    const eb_section *section = eb_find_section(model, "PROB");
    if (!section)
        return EB_OK;
    reader from = {model->base + section->offset, section->size};
    const unsigned char *head = take(&from, 8);
    if (!head)
        FAIL(EB_BAD_FORMAT, "%s: section PROB has only %llu bytes", model->name, (ull)section->size);
    if (eb_load_u32(head) != 1)
        FAIL(EB_UNSUPPORTED, "%s: PROB: version %u; this library knows version 1", model->name, eb_load_u32(head));
    const uint32_t n = eb_load_u32(head + 4);
    for (uint32_t number = 0; number < n; number++) {
        probe wanted;
        eb_status status = read_probe(model, &from, number, &wanted, error);
        if (!status)
            status = check_probe(engine, &wanted, number, layer_crc, tokens, error);
        if (status)
            return status;
        ++*n_probes;
    }
    if (from.left)
        FAIL(EB_BAD_FORMAT, "%s: section PROB has %llu bytes after its last probe", model->name, (ull)from.left);
    return EB_OK;
}

eb_status eb_probe_check(eb_engine *engine, uint32_t *n_probes, eb_error *error) {
    if (!engine || !n_probes)
        FAIL(EB_BAD_ARGUMENT, "eb_probe_check: engine or n_probes is null");
    *n_probes = 0;
    const size_t n_crc = engine->model->info.n_layers + 1;
    uint32_t *memory = eb_alloc(&engine->host, n_crc + 2 * MAX_PROBE_TOKENS, sizeof(uint32_t));
    if (!memory)
        FAIL(EB_NO_MEMORY, "no memory for the golden probes");
    const eb_status status = check_all(engine, n_probes, memory, (int32_t *)(memory + n_crc), error);
    engine->host.free(memory);
    return status;
}
