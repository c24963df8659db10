/* run_options.h - the command line of edgebit-run. */
#ifndef EB_RUN_OPTIONS_H
#define EB_RUN_OPTIONS_H

#include "edgebit.h"

typedef struct options {
    const char *model, *prompt, *system, *ids, *logits_out, *adapter;
    int chat, check, verify, stats, isa, ignore_stop;
    unsigned long max_tokens, threads, ctx, batch, speculate;
    eb_kv_type kv;
    eb_sampling sampling;
} options;

/* Ends the program where they are wrong, and after --help and --version. */
options read_options(int argc, char **argv);

#endif
