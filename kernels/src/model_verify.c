/* model_verify.c - reads every weight of a model file: what is too dear to do at each load. */
#include "crc32.h"
#include "mem.h"
#include "model_file.h"
#include "status.h"

static int all_finite(const float *values, uint64_t n) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits;
        eb_memcpy(&bits, values + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

static int all_finite_bf16(const uint16_t *values, uint64_t n) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++)
        bad |= (values[i] & 0x7f80u) == 0x7f80u;
    return !bad;
}

/* Code 3 has both bits of a field set; padding must be code 1. */
static int t2_in_range(const unsigned char *values, const eb_tensor *tensor) {
    const uint32_t n_padding = (64 - tensor->columns % 64) % 64;
    for (uint32_t row = 0; row < tensor->rows; row++, values += tensor->row_bytes) {
        unsigned char bad = 0;
        for (uint64_t i = 0; i < tensor->row_bytes; i++)
            bad |= values[i] & values[i] >> 1 & 0x55;
        const unsigned char *block = values + tensor->row_bytes - 16;
        for (uint32_t i = 64 - n_padding; i < 64; i++)
            bad |= (block[i % 16] >> (i / 16 * 2) & 3) != 1;
        if (bad)
            return 0;
    }
    return 1;
}

static int i8_in_range(const int8_t *values, const eb_tensor *tensor) {
    for (uint32_t row = 0; row < tensor->rows; row++, values += tensor->row_bytes) {
        uint32_t bad = 0;
        for (uint32_t i = 0; i < tensor->columns; i++)
            bad |= values[i] == -128;
        for (uint64_t i = tensor->columns; i < tensor->row_bytes; i++)
            bad |= values[i] != 0;
        if (bad)
            return 0;
    }
    return 1;
}

/* What is wrong with a tensor's values, or NULL. */
static const char *fault(const eb_tensor *tensor) {
    if (!tensor->values)
        return NULL;
    const uint64_t n = (uint64_t)tensor->rows * tensor->columns;
    if (tensor->scales && !all_finite(tensor->scales, tensor->by_row ? tensor->rows : 1))
        return "a scale is not a finite number";
    switch (tensor->encoding) {
    case EB_F32:
        return all_finite(tensor->values, n) ? NULL : "a value is not a finite number";
    case EB_BF16:
        return all_finite_bf16(tensor->values, n) ? NULL : "a value is not a finite number";
    case EB_I8:
        return i8_in_range(tensor->values, tensor) ? NULL : "a code is -128, or padding is not 0";
    case EB_T2:
        return t2_in_range(tensor->values, tensor) ? NULL : "a code is 3, or padding is not code 1";
    }
    return NULL;
}

eb_status eb_model_verify(const eb_model *model, eb_error *error) {
    if (!model) {
        eb_fail(error, "eb_model_verify: model is null");
        return EB_BAD_ARGUMENT;
    }
    const eb_section *data = eb_find_section(model, "DATA");
    if (eb_crc32(0, model->base + data->offset, (size_t)data->size) != data->crc) {
        eb_fail(error, "%s: section DATA: its sum is wrong: the file is damaged. Copy it again", model->name);
        return EB_BAD_FORMAT;
    }
    static const char *const names[EB_N_MODEL_TENSORS] = {"token_embedding", "head", "final_norm", "rope_inv_freq"};
    for (unsigned t = 0; t < EB_N_MODEL_TENSORS; t++) {
        const char *what = fault(&model->tensor[t]);
        if (what) {
            eb_fail(error, "%s: %s: %s", model->name, names[t], what);
            return EB_BAD_FORMAT;
        }
    }
    for (uint32_t layer = 0; layer < model->info.n_layers; layer++)
        for (unsigned t = 0; t < EB_N_LAYER_TENSORS; t++) {
            const char *what = fault(&model->layers[layer].tensor[t]);
            if (what) {
                eb_fail(error, "%s: %s of layer %u: %s", model->name, eb_layer_tensor_name(t), layer, what);
                return EB_BAD_FORMAT;
            }
        }
    return EB_OK;
}
