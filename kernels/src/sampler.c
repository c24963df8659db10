/* sampler.c - draws a token from logits; the same seed and logits give the same token everywhere.
 *
 * The order of the filters is that of Hugging Face transformers: repetition penalty, temperature, top-k, top-p, min-p;
 * then one draw. (llama.cpp applies the temperature last, so its top-p and min-p see the untempered distribution.) A
 * filter never takes away the most probable token. Probabilities are left unnormalised, relative to the highest:
 * e^((logit - highest) / temperature). Sums are in double, in a fixed order. */
#include "float_mode.h"
#include "mem.h"
#include "status.h"
#include "vec.h"

enum { DEFAULT_WINDOW = 64, MAX_WINDOW = 1 << 20, MAX_VOCAB = 1 << 21 };

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct eb_sampler {
    eb_host host;
    eb_sampling options;
    uint32_t vocab_size, window_size, window_used, window_at;
    uint64_t random;
    int32_t *window;       /* [window_size] ring of the last tokens */
    uint32_t *times;       /* [vocab_size] how often each stands in the window */
    candidate *candidates; /* [vocab_size] */
    float *weights;        /* [vocab_size rounded up to 4] */
};

#define LOWEST -3.4028234e38f /* the logit of a token that was ruled out, or has none */

static int is_finite(float value) { return value >= LOWEST && value <= -LOWEST; }

static eb_status check_options(uint32_t vocab_size, const eb_sampling *o, eb_error *error) {
    const char *wrong = NULL;
    if (o->size != sizeof(eb_sampling))
        wrong = "size is not that of this library's eb_sampling";
    else if (!vocab_size || vocab_size > MAX_VOCAB)
        wrong = "vocab_size is 0 or larger than 2097152";
    else if (!(o->temperature >= 0 && is_finite(o->temperature)))
        wrong = "temperature must be 0 or a positive number";
    else if (!(o->top_p >= 0 && o->top_p <= 1))
        wrong = "top_p must be 0 to 1";
    else if (!(o->min_p >= 0 && o->min_p <= 1))
        wrong = "min_p must be 0 to 1";
    else if (!(o->repetition_penalty > 0 && is_finite(o->repetition_penalty)))
        wrong = "repetition_penalty must be a positive number";
    else if (o->repetition_window > MAX_WINDOW)
        wrong = "repetition_window is larger than 1048576";
    if (!wrong)
        return EB_OK;
    eb_fail(error, "sampling: %s", wrong);
    return EB_BAD_ARGUMENT;
}

eb_status eb_sampler_open(const eb_host *host, uint32_t vocab_size, const eb_sampling *sampling, eb_sampler **out,
                          eb_error *error) {
    eb_status status = eb_host_check(host, error);
    if (status)
        return status;
    if (!sampling || !out) {
        eb_fail(error, "eb_sampler_open: sampling or out is null");
        return EB_BAD_ARGUMENT;
    }
    *out = NULL;
    if ((status = check_options(vocab_size, sampling, error)))
        return status;
    const uint32_t window_size = sampling->repetition_window ? sampling->repetition_window : DEFAULT_WINDOW;
    const size_t words = (size_t)window_size + vocab_size + ((size_t)vocab_size + 3);
    eb_sampler *sampler = eb_alloc(host, 1, sizeof(eb_sampler) + vocab_size * sizeof(candidate) + words * 4);
    if (!sampler) {
        eb_fail(error, "no memory for a sampler");
        return EB_NO_MEMORY;
    }
    eb_memset(sampler, 0, sizeof *sampler);
    sampler->host = *host;
    sampler->options = *sampling;
    sampler->vocab_size = vocab_size;
    sampler->window_size = window_size;
    sampler->random = sampling->seed;
    sampler->candidates = (candidate *)(void *)(sampler + 1);
    sampler->weights = (float *)(void *)(sampler->candidates + vocab_size);
    sampler->times = (uint32_t *)(void *)(sampler->weights + vocab_size + 3);
    sampler->window = (int32_t *)(void *)(sampler->times + vocab_size);
    eb_memset(sampler->times, 0, vocab_size * sizeof *sampler->times);
    *out = sampler;
    return EB_OK;
}

void eb_sampler_close(eb_sampler *sampler) {
    if (sampler)
        sampler->host.free(sampler);
}

void eb_sampler_accept(eb_sampler *sampler, int32_t token) {
    if (!sampler || token < 0 || (uint32_t)token >= sampler->vocab_size)
        return;
    if (sampler->window_used == sampler->window_size)
        sampler->times[sampler->window[sampler->window_at]]--;
    else
        sampler->window_used++;
    sampler->window[sampler->window_at] = token;
    sampler->times[token]++;
    sampler->window_at = (sampler->window_at + 1) % sampler->window_size;
}

/* The logit of `id` after the repetition penalty; the lowest number there is for what is not a number. */
static inline float penalised(const eb_sampler *sampler, const float *logits, uint32_t id) {
    float logit = logits[id];
    if (sampler->times[id]) {
        const float penalty = sampler->options.repetition_penalty;
        logit = logit > 0 ? logit / penalty : logit * penalty;
    }
    return logit > LOWEST ? logit : LOWEST;
}

static int32_t greedy(const eb_sampler *sampler, const float *logits) {
    uint32_t best = 0;
    float highest = penalised(sampler, logits, 0);
    for (uint32_t id = 1; id < sampler->vocab_size; id++) {
        const float logit = penalised(sampler, logits, id);
        if (logit > highest) {
            highest = logit;
            best = id;
        }
    }
    return (int32_t)best;
}

/* ---- a heap of candidates: the highest logit on top, the lower id first among equals ---- */

static inline int is_before(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sink(candidate *heap, size_t n, size_t at) {
    const candidate moved = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_before(heap[child + 1], heap[child]))
            child++;
        if (!is_before(heap[child], moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* Takes the top away from a heap of n and puts it behind its end. */
static void pop(candidate *heap, size_t n) {
    const candidate top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sink(heap, n - 1, 0);
}

/* ---- the draw ---- */

/* splitmix64 (Steele, Lea, Flood 2014): a number in [0, 1) with 53 bits. */
static double next_random(eb_sampler *sampler) {
    uint64_t z = sampler->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* 0 for a token that was ruled out, whatever the temperature. */
static float weight_of(const eb_sampler *sampler, float logit, float highest) {
    if (logit <= LOWEST)
        return 0;
    return eb_v_exp(eb_v_splat((logit - highest) / sampler->options.temperature))[0];
}

/* All candidates, in the order of their ids: nothing is filtered. */
static int32_t draw_from_all(eb_sampler *sampler, float highest, int32_t best) {
    const uint32_t n = sampler->vocab_size;
    double total = 0;
    for (uint32_t id = 0; id < n; id++) {
        sampler->weights[id] = weight_of(sampler, sampler->candidates[id].logit, highest);
        total += sampler->weights[id];
    }
    double left = next_random(sampler) * total;
    for (uint32_t id = 0; id < n; id++) {
        left -= sampler->weights[id];
        if (left < 0)
            return (int32_t)id;
    }
    return best;
}

/* The candidates that pass top-k, top-p and min-p, the most probable first. */
static int32_t draw_from_best(eb_sampler *sampler, float highest, int32_t best) {
    const eb_sampling *options = &sampler->options;
    const size_t n = sampler->vocab_size;
    const size_t k = options->top_k && options->top_k < n ? options->top_k : n;
    candidate *heap = sampler->candidates;
    for (size_t at = n / 2; at-- > 0;)
        sink(heap, n, at);
    /* What top-p takes its share of: the k best or, without top-k, all. Only as many as needed leave the heap. */
    size_t popped = 0;
    double total = 0;
    if (k < n)
        for (; popped < k; popped++) {
            pop(heap, n - popped);
            total += weight_of(sampler, heap[n - 1 - popped].logit, highest);
        }
    else
        for (size_t i = 0; i < n; i++)
            total += weight_of(sampler, heap[i].logit, highest);

    size_t kept = 0;
    double sum = 0;
    while (kept < k && (!kept || sum < options->top_p * total)) {
        if (kept == popped)
            pop(heap, n - popped++);
        const float weight = weight_of(sampler, heap[n - 1 - kept].logit, highest);
        if (kept && weight < options->min_p)
            break;
        sampler->weights[kept++] = weight;
        sum += weight;
    }
    double left = next_random(sampler) * sum;
    for (size_t i = 0; i < kept; i++) {
        left -= sampler->weights[i];
        if (left < 0)
            return heap[n - 1 - i].id;
    }
    return best;
}

static int32_t draw(eb_sampler *sampler, const float *logits) {
    const eb_sampling *options = &sampler->options;
    const int32_t best = greedy(sampler, logits);
    if (options->temperature == 0 || options->top_k == 1)
        return best;
    const float highest = penalised(sampler, logits, (uint32_t)best);
    for (uint32_t id = 0; id < sampler->vocab_size; id++)
        sampler->candidates[id] = (candidate){penalised(sampler, logits, id), (int32_t)id};
    if (options->top_k == 0 && options->top_p >= 1 && options->min_p <= 0)
        return draw_from_all(sampler, highest, best);
    return draw_from_best(sampler, highest, best);
}

uint32_t eb_sampler_reach(const eb_sampler *sampler) {
    if (!sampler)
        return 0;
    const eb_sampling *options = &sampler->options;
    const uint32_t kept = options->temperature == 0 ? 1 : options->top_k;
    /* A penalty above 1 pushes down tokens of the window and none else, so as many more may come up; one below 1 may
     * pull up any token of the window. */
    if (!kept || kept >= sampler->vocab_size || options->repetition_penalty < 1)
        return 0;
    return kept + (options->repetition_penalty > 1 ? sampler->window_used : 0);
}

int32_t eb_sample(eb_sampler *sampler, const float *logits) {
    if (!sampler || !logits)
        return -1;
    const eb_float_mode before = eb_float_mode_enter();
    const int32_t token = draw(sampler, logits);
    eb_float_mode_leave(before);
    eb_sampler_accept(sampler, token);
    return token;
}
