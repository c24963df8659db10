/* model_check.h - what the checks of a model file's sections share. */
#ifndef EB_MODEL_CHECK_H
#define EB_MODEL_CHECK_H

#include "mem.h"
#include "model_file.h"
#include "status.h"

#define FAIL(status, ...) EB_FAIL(error, status, __VA_ARGS__)

static inline int all_zero(const unsigned char *bytes, uint64_t size) {
    unsigned char any = 0;
    for (uint64_t i = 0; i < size; i++)
        any |= bytes[i];
    return !any;
}

static inline uint64_t up(uint64_t n, uint64_t step) { return (n + step - 1) / step * step; }
static inline uint64_t to_64(uint64_t n) { return up(n, 64); }

/* Section CONF into model->info and model->config; the sections are checked. */
eb_status eb_check_config(eb_model *model, eb_error *error);

/* Section TENS into model->tensor and model->layers; CONF is checked. */
eb_status eb_check_tensors(eb_model *model, eb_error *error);

#endif
