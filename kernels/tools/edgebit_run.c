/* edgebit_run.c - runs a model on a device without Python: one static program. `edgebit-run --help` says how. */
#include "adapter_file.h"
#include "edgebit.h"
#include "fault.h"
#include "model_place.h"
#include "posix_host.h"
#include "prompt_program.h"
#include "run_options.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static eb_engine *running; /* what Ctrl-C cancels */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
    eb_cancel(running);
}

/* ---- prompts ---- */

typedef struct ids {
    int32_t *id;
    size_t n;
} ids;

static ids parse_ids(const char *list) {
    ids out = {allocate((strlen(list) + 1) * sizeof(int32_t)), 0};
    for (const char *at = list; *at;) {
        char *end;
        const long value = strtol(at, &end, 10);
        if (end == at || value < 0 || value > INT32_MAX)
            die(EXIT_USAGE, "--ids: \"%s\" does not begin with a token id", at);
        out.id[out.n++] = (int32_t)value;
        for (at = end; *at == ',' || *at == ' '; at++)
            ;
    }
    return out;
}

static char *read_all(FILE *file) {
    size_t size = 0, capacity = 4096;
    char *text = allocate(capacity + 1);
    for (size_t n; (n = fread(text + size, 1, capacity - size, file)) > 0;) {
        size += n;
        if (size == capacity) {
            capacity *= 2;
            text = realloc(text, capacity + 1);
            if (!text)
                die(EXIT_ENGINE, "no memory for the prompt");
        }
    }
    text[size] = 0;
    return text;
}

static ids tokenize(const eb_tokenizer *tokenizer, const prompt *text, int32_t begin) {
    size_t n = 0;
    eb_status status = eb_tokenize_ranges(tokenizer, text->text, text->size, text->range, text->n_ranges, NULL, 0, &n);
    ids out = {allocate((n + 1) * sizeof(int32_t)), 0};
    if (begin >= 0)
        out.id[out.n++] = begin;
    if (status == EB_LIMIT && n)
        status =
            eb_tokenize_ranges(tokenizer, text->text, text->size, text->range, text->n_ranges, out.id + out.n, n, &n);
    if (status)
        die(exit_code(status), "the prompt cannot be tokenized: %s", eb_status_name(status));
    out.n += n;
    return out;
}

static prompt_program read_program(const eb_model *model, const char *path) {
    const void *data;
    uint64_t size;
    prompt_program out;
    eb_model_section(model, "PRMT", &data, &size);
    if (!data)
        die(EXIT_MODEL, "%s has no chat template: give it a plain prompt, without --chat", path);
    const char *fault = read_prompt_program(data, size, &out);
    if (fault)
        die(EXIT_MODEL, "%s: section PRMT %s", path, fault);
    return out;
}

static ids make_prompt(const options *o, const eb_model *model, const eb_tokenizer *tokenizer) {
    char *content = o->prompt ? strdup(o->prompt) : read_all(stdin);
    const int32_t bos = eb_model_get_info(model)->bos_token;
    prompt text = {0};
    int32_t begin = bos;
    if (!o->chat) {
        text.text = allocate(strlen(content));
        add_text(&text, content, strlen(content));
    } else {
        const prompt_program p = read_program(model, o->model);
        size_t name_size = 0;
        int is_special = 0;
        const char *name = p.flags & PROMPT_BEGINS ? eb_token_bytes(tokenizer, bos, &name_size, &is_special) : NULL;
        text.text = allocate(prompt_room(&p, o->system, content) + name_size);
        begin = name && !is_special ? bos : -1;
        if (name && is_special) /* by its name: some tokenizers put a space before a text that nothing stands before */
            add_template(&text, name, name_size);
        if (o->system && !(p.flags & PROMPT_TAKES_SYSTEM))
            die(EXIT_USAGE, "this model's chat template has no place for a system message");
        write_prompt(&text, &p, o->system, content);
    }
    const ids out = tokenize(tokenizer, &text, begin);
    free(text.text);
    free(content);
    if (!out.n)
        die(EXIT_USAGE, "the prompt is empty");
    return out;
}

/* ---- running ---- */

static void must(eb_engine *engine, eb_status status) {
    if (status == EB_CANCELLED)
        return;
    if (status)
        die(exit_code(status), "%s", eb_engine_error(engine));
}

/* Evaluates the prompt in parts of as many tokens as there are rows of logits, and writes them all. */
static void write_logits(eb_engine *engine, const ids *prompt_ids, uint32_t rows, uint32_t vocab_size,
                         const char *path) {
    FILE *file = fopen(path, "wb");
    uint8_t *want = allocate(rows);
    memset(want, 1, rows);
    if (!file)
        die(EXIT_FAULT, "%s: cannot be written: %s", path, strerror(errno));
    for (size_t at = 0; at < prompt_ids->n && !interrupted; at += rows) {
        const uint32_t n = prompt_ids->n - at < rows ? (uint32_t)(prompt_ids->n - at) : rows;
        must(engine, eb_eval(engine, &(eb_batch){.n_tokens = n, .tokens = prompt_ids->id + at, .want_logits = want}));
        for (uint32_t row = 0; row < n && !interrupted; row++)
            if (fwrite(eb_logits(engine, row), sizeof(float), vocab_size, file) != vocab_size)
                die(EXIT_FAULT, "%s: cannot be written: %s", path, strerror(errno));
    }
    if (fclose(file))
        die(EXIT_FAULT, "%s: cannot be written: %s", path, strerror(errno));
    free(want);
}

static int is_stop(const eb_model_info *info, int32_t token) {
    for (uint32_t i = 0; i < info->n_stop_tokens; i++)
        if (info->stop_tokens[i] == token)
            return 1;
    return 0;
}

static void show(const char *piece, size_t size) {
    if (size) {
        fwrite(piece, 1, size, stdout);
        fflush(stdout);
    }
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* An answer in the making. */
typedef struct decoding {
    eb_engine *engine;
    eb_sampler *sampler;
    uint32_t ctx_len;
    eb_drafting drafting;
    ids text;                        /* prompt and answer */
    int32_t pass[1 + EB_MAX_DRAFT];  /* the last pass: a token and a draft */
    uint32_t row, n_draft, n_true;   /* row of the logits to draw from; length of the draft, and how much came true */
    uint64_t pass_ns, ns, n_decoded; /* of the last pass; of all, and tokens drawn after them */
    int penalised;
} decoding;

static void end_pass(decoding *d) {
    if (d->pass_ns)
        eb_draft_record(&d->drafting, d->n_true, d->pass_ns);
    d->pass_ns = 0;
}

/* Makes d->row the logits after `token`, of which at most `left` more will be drawn. */
static eb_status advance(decoding *d, int32_t token, unsigned long left) {
    static const uint8_t want_all[1 + EB_MAX_DRAFT] = {[0 ... EB_MAX_DRAFT] = 1};
    d->text.id[d->text.n++] = token;
    d->n_decoded++;
    if (d->n_true < d->n_draft && d->pass[1 + d->n_true] == token) {
        d->n_true++;
        d->row++;
        return EB_OK;
    }
    end_pass(d);
    uint32_t length = eb_sequence_length(d->engine, 0) - (d->n_draft - d->n_true);
    must(d->engine, eb_sequence_truncate(d->engine, 0, length));
    const uint32_t room = d->ctx_len > length ? d->ctx_len - length - 1 : 0;
    d->pass[0] = token;
    d->n_draft =
        eb_draft(&d->drafting, d->text.id, d->text.n, d->pass + 1, left - 1 < room ? (uint32_t)left - 1 : room);
    d->row = d->n_true = 0;
    const uint32_t reach = eb_sampler_reach(d->sampler);
    const uint64_t started = now_ns();
    const eb_status status =
        eb_eval(d->engine, &(eb_batch){.n_tokens = 1 + d->n_draft,
                                       .tokens = d->pass,
                                       .want_logits = want_all,
                                       .n_best = reach && d->penalised ? reach + d->n_draft : reach});
    d->pass_ns = now_ns() - started;
    d->ns += d->pass_ns;
    return status;
}

/* Prints the answer to d->text: as text with `text`, else as ids. */
static void generate(const options *o, decoding *d, const eb_model_info *info, eb_text *text) {
    const char *piece;
    size_t size;
    for (unsigned long n = 0; n < o->max_tokens && !interrupted; n++) {
        const int32_t token = eb_sample(d->sampler, eb_logits(d->engine, d->row));
        if (!o->ignore_stop && is_stop(info, token))
            break;
        if (text) {
            int stopped;
            must(d->engine, eb_text_push(text, token, &piece, &size, &stopped));
            show(piece, size);
        } else {
            printf(n ? " %d" : "%d", token);
            fflush(stdout);
        }
        if (n + 1 == o->max_tokens)
            break;
        const eb_status status = advance(d, token, o->max_tokens - n - 1);
        if (status == EB_LIMIT) {
            fprintf(stderr, "edgebit-run: the context is full: the answer ends here. --ctx makes it longer\n");
            break;
        }
        must(d->engine, status);
    }
    end_pass(d);
    if (text) {
        must(d->engine, eb_text_finish(text, &piece, &size));
        show(piece, size);
    }
    if (o->max_tokens)
        putchar('\n');
}

/* Everything that an answer to `begin` needs. */
static decoding begin_decoding(const options *o, const eb_host *host, eb_engine *engine, const eb_model_info *info,
                               const ids *begin, uint32_t ctx_len) {
    decoding d = {.engine = engine, .ctx_len = ctx_len, .drafting.size = sizeof(eb_drafting)};
    eb_error error;
    const eb_status status = eb_sampler_open(host, info->vocab_size, &o->sampling, &d.sampler, &error);
    if (status)
        die(status == EB_BAD_ARGUMENT ? EXIT_USAGE : EXIT_ENGINE, "%s", error.text);
    d.penalised = o->sampling.repetition_penalty != 1;
    must(engine, eb_drafting_init(&d.drafting, (uint32_t)o->speculate));
    d.text.id = allocate((begin->n + ctx_len + 1) * sizeof(int32_t));
    memcpy(d.text.id, begin->id, begin->n * sizeof(int32_t));
    d.text.n = begin->n;
    for (size_t i = 0; i < begin->n; i++)
        eb_sampler_accept(d.sampler, begin->id[i]);
    return d;
}

static void print_speed(const char *what, uint64_t n_tokens, uint64_t ns) {
    if (n_tokens && ns)
        fprintf(stderr, "%-8s %8.2f tok/s  (%llu tokens)\n", what, (double)n_tokens * 1e9 / (double)ns,
                (unsigned long long)n_tokens);
}

static void print_stats(const decoding *d, const ids *begin, uint64_t prefill_ns, double load_s) {
    eb_stats stats;
    struct rusage usage = {0};
    eb_engine_stats(d->engine, &stats);
    getrusage(RUSAGE_SELF, &usage);
    fprintf(stderr, "load     %8.3f s\n", load_s);
    print_speed("prefill", begin->n, prefill_ns);
    print_speed("decode", d->n_decoded, d->ns);
    if (d->drafting.drafted)
        fprintf(stderr, "drafts   %8llu tokens, of which %llu came true\n", (unsigned long long)d->drafting.drafted,
                (unsigned long long)d->drafting.accepted);
    if (stats.head_tokens)
        fprintf(stderr, "head     %8.1f rows a token read past their high plane, %.1f to the end\n",
                (double)stats.head_middle_rows / (double)stats.head_tokens,
                (double)stats.head_low_rows / (double)stats.head_tokens);
    fprintf(stderr, "memory   %8.1f MiB at most, %s, %u threads\n", (double)usage.ru_maxrss / 1024,
            eb_engine_isa(d->engine), stats.n_threads);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int print_isa(const eb_host *host) {
    eb_error error;
    const char *isa = eb_isa_pick(host, &error);
    if (!isa)
        die(EXIT_ENGINE, "%s", error.text);
    printf("%s (of: %s)\n", isa, eb_isa_names());
    return EXIT_OK;
}

static eb_model *open_model(const options *o, const eb_host *host) {
    model_place place;
    char why[256];
    if (find_model(o->model, &place, why))
        die(EXIT_MODEL, "%s: %s", o->model, why);
    eb_model *model;
    eb_error error;
    eb_status status = eb_model_open(host, place.path, place.offset, place.size, &model, &error);
    if (status)
        die(exit_code(status), "%s", error.text);
    if (o->verify && (status = eb_model_verify(model, &error)))
        die(exit_code(status), "%s", error.text);
    return model;
}

static int check_probes(eb_engine *engine) {
    uint32_t n_probes;
    eb_error error;
    const eb_status status = eb_probe_check(engine, &n_probes, &error);
    if (status == EB_CANCELLED)
        return EXIT_INTERRUPT;
    if (status)
        die(exit_code(status), "%s", error.text);
    if (n_probes)
        printf("%u golden probes hold (%s)\n", n_probes, eb_engine_isa(engine));
    else
        printf("the model has no golden probes\n");
    return EXIT_OK;
}

/* The prompt's logits, or those of its last token. */
static void prefill(const options *o, decoding *d, const eb_model_info *info, const ids *begin, uint32_t rows) {
    if (o->logits_out) {
        write_logits(d->engine, begin, rows, info->vocab_size, o->logits_out);
        d->row = (uint32_t)((begin->n - 1) % rows);
    } else if (begin->n > UINT32_MAX) {
        die(EXIT_ENGINE, "the prompt is too long");
    } else {
        must(d->engine, eb_eval(d->engine, &(eb_batch){.n_tokens = (uint32_t)begin->n,
                                                       .tokens = begin->id,
                                                       .n_best = eb_sampler_reach(d->sampler)}));
    }
}

int main(int argc, char **argv) {
    const options o = read_options(argc, argv);
    const eb_host host = eb_posix_host(getenv("EDGEBIT_ISA"));
    if (o.isa)
        return print_isa(&host);

    const double started = seconds();
    eb_model *model = open_model(&o, &host);
    const eb_model_info *info = eb_model_get_info(model);
    eb_error error;
    eb_engine *engine;
    const uint32_t rows = o.logits_out && o.speculate < 64 ? 64 : 1 + (uint32_t)o.speculate;
    const uint32_t ctx_default = info->context_max < 4096 ? info->context_max : 4096;
    const uint32_t ctx_len = o.ctx ? (uint32_t)o.ctx : ctx_default;
    const eb_engine_options engine_options = {.size = sizeof engine_options,
                                              .ctx_len = ctx_len,
                                              .n_threads = (uint32_t)o.threads,
                                              .batch_len = (uint32_t)o.batch,
                                              .logits_rows = rows,
                                              .kv_type = o.kv};
    eb_status status = eb_engine_open(model, &engine_options, &engine, &error);
    if (status)
        die(EXIT_ENGINE, "%s", error.text);
    adapter_file adapter = {0};
    if (o.adapter) {
        adapter = open_adapter_file(model, o.adapter);
        must(engine, eb_sequence_set_adapter(engine, 0, adapter.adapter));
    }
    running = engine;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);

    int code = EXIT_OK;
    eb_tokenizer *tokenizer = NULL;
    eb_text *text = NULL;
    if (o.check) {
        code = check_probes(engine);
    } else {
        ids begin;
        if (o.ids) {
            begin = parse_ids(o.ids);
        } else {
            const void *section;
            uint64_t size;
            eb_model_section(model, "TOKN", &section, &size);
            if (!section)
                die(EXIT_MODEL, "%s has no tokenizer: give it --ids", o.model);
            if ((status = eb_tokenizer_open(&host, section, size, &tokenizer, &error)) ||
                (status = eb_text_open(tokenizer, NULL, NULL, 0, &text, &error)))
                die(exit_code(status), "%s: %s", o.model, error.text);
            begin = make_prompt(&o, model, tokenizer);
        }
        const double load_s = seconds() - started;
        decoding answer = begin_decoding(&o, &host, engine, info, &begin, ctx_len);
        const uint64_t prefill_started = now_ns();
        prefill(&o, &answer, info, &begin, rows);
        const uint64_t prefill_ns = now_ns() - prefill_started;
        if (!interrupted)
            generate(&o, &answer, info, text);
        if (o.stats)
            print_stats(&answer, &begin, prefill_ns, load_s);
        eb_sampler_close(answer.sampler);
        free(answer.text.id);
        free(begin.id);
        code = interrupted ? EXIT_INTERRUPT : EXIT_OK;
    }
    running = NULL;
    eb_text_close(text);
    eb_tokenizer_close(tokenizer);
    eb_engine_close(engine);
    eb_adapter_close(adapter.adapter);
    free(adapter.block);
    eb_model_close(model);
    return code;
}
