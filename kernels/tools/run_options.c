/* run_options.c - see run_options.h. */
#include "run_options.h"
#include "fault.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "edgebit-run MODEL [OPTIONS]\n"
    "Runs a ternary language model. MODEL is a model file (.ebm), a bundle, or a folder that holds model.ebm.\n"
    "\n"
    "Prompt (without one, standard input is read):\n"
    "  -p, --prompt TEXT       continue TEXT\n"
    "  --chat                  take the prompt as a user's message, in the model's own template\n"
    "  --system TEXT           with --chat: a system message before it\n"
    "  --ids LIST              token ids instead of text, \"1,2,3\"; the answer is printed as ids\n"
    "Answer:\n"
    "  --adapter FILE          a LoRA adapter of `edgebit adapter convert`, that every token goes through\n"
    "  -n, --max-tokens N      at most N tokens (256); 0: only read the prompt\n"
    "  --temp T                temperature; 0, the default: always the most probable token\n"
    "  --top-k K  --top-p P  --min-p P  --repeat-penalty R  --repeat-window N  --seed S\n"
    "  --ignore-stop           go on after a stop token\n"
    "  --speculate N           try drafts of at most N tokens, found in the text itself (4; with --ids 0); 0: none.\n"
    "                          It changes how fast an answer comes, never what it is\n"
    "Engine:\n"
    "  --threads N             worker threads (all cores)\n"
    "  --ctx N                 context length in tokens (the model's maximum, at most 4096)\n"
    "  --kv TYPE               how keys and values are held: f16 (the default), int8 (half of it), f32\n"
    "  --batch N               prompt tokens computed together (128)\n"
    "Checks:\n"
    "  --check                 run the model's golden probes and print what they say\n"
    "  --verify                read every weight and check its sum first\n"
    "  --logits-out FILE       write the logits of all prompt tokens, float32 [tokens, vocabulary]\n"
    "  --stats                 speeds and memory on standard error at the end\n"
    "  --isa                   print the ISA level used and those of this build\n"
    "  --version  --help\n"
    "Environment: EDGEBIT_ISA names the highest ISA level to use.\n"
    "Exit codes: 0 done; 1 another fault; 2 wrong options; 3 the model is missing, damaged or of a kind not known;\n"
    "  9 the engine refused (context full, too little memory, unknown ISA level); 14 a golden probe differs;\n"
    "  130 interrupted (Ctrl-C): what was written so far is whole.\n";

static unsigned long number(const char *name, const char *text, unsigned long high) {
    char *end;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || *text == '-' || value > high)
        die(EXIT_USAGE, "%s %s: a whole number from 0 to %lu is wanted", name, text, high);
    return value;
}

static float real(const char *name, const char *text) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end)
        die(EXIT_USAGE, "%s %s: a number is wanted", name, text);
    return (float)value;
}

static int is(const char *argument, const char *a, const char *b) {
    return !strcmp(argument, a) || (b && !strcmp(argument, b));
}

static eb_kv_type kv_type(const char *text) {
    if (is(text, "f16", NULL))
        return EB_KV_F16;
    if (is(text, "int8", NULL))
        return EB_KV_I8;
    if (is(text, "f32", NULL))
        return EB_KV_F32;
    die(EXIT_USAGE, "--kv %s: f16, int8 or f32 is wanted", text);
}

/* Takes an option without a value; 0 where it is none. */
static int take_flag(options *o, const char *name) {
    if (is(name, "--chat", NULL))
        o->chat = 1;
    else if (is(name, "--check", NULL))
        o->check = 1;
    else if (is(name, "--verify", NULL))
        o->verify = 1;
    else if (is(name, "--stats", NULL))
        o->stats = 1;
    else if (is(name, "--isa", NULL))
        o->isa = 1;
    else if (is(name, "--ignore-stop", NULL))
        o->ignore_stop = 1;
    else
        return 0;
    return 1;
}

static void take_value(options *o, const char *name, const char *value) {
    if (is(name, "-p", "--prompt"))
        o->prompt = value;
    else if (is(name, "--system", NULL))
        o->system = value;
    else if (is(name, "--ids", NULL))
        o->ids = value;
    else if (is(name, "--adapter", NULL))
        o->adapter = value;
    else if (is(name, "--logits-out", NULL))
        o->logits_out = value;
    else if (is(name, "-n", "--max-tokens"))
        o->max_tokens = number(name, value, UINT32_MAX);
    else if (is(name, "--threads", NULL))
        o->threads = number(name, value, UINT32_MAX);
    else if (is(name, "--ctx", NULL))
        o->ctx = number(name, value, UINT32_MAX);
    else if (is(name, "--kv", NULL))
        o->kv = kv_type(value);
    else if (is(name, "--batch", NULL))
        o->batch = number(name, value, UINT32_MAX);
    else if (is(name, "--speculate", NULL))
        o->speculate = number(name, value, EB_MAX_DRAFT);
    else if (is(name, "--temp", "--temperature"))
        o->sampling.temperature = real(name, value);
    else if (is(name, "--top-k", NULL))
        o->sampling.top_k = (uint32_t)number(name, value, UINT32_MAX);
    else if (is(name, "--top-p", NULL))
        o->sampling.top_p = real(name, value);
    else if (is(name, "--min-p", NULL))
        o->sampling.min_p = real(name, value);
    else if (is(name, "--repeat-penalty", NULL))
        o->sampling.repetition_penalty = real(name, value);
    else if (is(name, "--repeat-window", NULL))
        o->sampling.repetition_window = (uint32_t)number(name, value, UINT32_MAX);
    else if (is(name, "--seed", NULL))
        o->sampling.seed = number(name, value, ULONG_MAX);
    else
        die(EXIT_USAGE, "unknown option %s; --help shows all", name);
}

options read_options(int argc, char **argv) {
    options o = {.max_tokens = 256, .speculate = ULONG_MAX};
    o.sampling = (eb_sampling){.size = sizeof o.sampling, .top_p = 1, .repetition_penalty = 1};
    for (int i = 1; i < argc; i++) {
        if (is(argv[i], "-h", "--help")) {
            fputs(help, stdout);
            exit(EXIT_OK);
        }
        if (is(argv[i], "--version", NULL)) {
            printf("edgebit-run %s\n", eb_version());
            exit(EXIT_OK);
        }
        if (argv[i][0] != '-' || !argv[i][1]) {
            if (o.model)
                die(EXIT_USAGE, "one MODEL is wanted, and there are %s and %s", o.model, argv[i]);
            o.model = argv[i];
        } else if (!take_flag(&o, argv[i])) {
            if (i + 1 >= argc)
                die(EXIT_USAGE, "%s: unknown, or its value is missing; --help shows all", argv[i]);
            take_value(&o, argv[i], argv[i + 1]);
            i++;
        }
    }
    if (!o.model && !o.isa)
        die(EXIT_USAGE, "MODEL is missing; --help shows how");
    if (o.ids && (o.prompt || o.chat))
        die(EXIT_USAGE, "--ids goes without --prompt and --chat");
    if (o.system && !o.chat)
        die(EXIT_USAGE, "--system goes with --chat only");
    if (o.speculate == ULONG_MAX)
        o.speculate = o.ids ? 0 : 4;
    if (!o.threads) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        o.threads = online > 0 ? (unsigned long)online : 1;
    }
    return o;
}
