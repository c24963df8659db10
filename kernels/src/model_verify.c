/* model_verify.c - reads every weight of a model file: what is too dear to do at each load. */
#include "crc32.h"
#include "mem.h"
#include "model_file.h"
#include "status.h"
#include "ukernel.h"
#include "ukernel/layout_t1.h"

static int all_finite(const float *values, uint64_t n) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits;
        eb_memcpy(&bits, values + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* Of bf16 or f16: `exponent` has the bits that are all set in what is not finite. */
static int all_finite_16(const uint16_t *values, uint64_t n, uint32_t exponent) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++)
        bad |= (values[i] & exponent) == exponent;
    return !bad;
}

/* Ternary rows come in pieces of four: a tile of layout t2 (64 columns), or a block of layout t1 (384). */
typedef struct piece {
    uint32_t columns, bytes;
} piece;

static piece piece_at(const eb_tensor *matrix, uint32_t column) {
    if (matrix->encoding == EB_T1 && column + EB_T1_BLOCK <= matrix->k)
        return (piece){EB_T1_BLOCK, 64 * EB_T1_VECTORS};
    return (piece){64, 64};
}

/* Code 3 has both bits of a field set; an index of layout t1 has both upper bits set from 24 on. */
static int codes_in_range(const unsigned char *values, piece p) {
    unsigned char bad = 0;
    if (p.columns == 64) {
        for (uint32_t i = 0; i < 64; i++)
            bad |= values[i] & values[i] >> 1 & 0x55;
        return !bad;
    }
    for (uint32_t i = 0; i < 64; i++) {
        uint8_t index[EB_T1_INDICES];
        eb_t1_indices(index, values + i);
        for (int j = 0; j < EB_T1_INDICES; j++)
            bad |= index[j] > 26;
    }
    return !bad;
}

/* Whether the piece's weights outside of the matrix, from column `column` and row `row` of it on, have code 1. */
static int padding_is_zero(const eb_tensor *matrix, const unsigned char *values, piece p, uint32_t row,
                           uint32_t column) {
    uint8_t codes[4 * EB_T1_BLOCK];
    if (p.columns == 64)
        eb_unpack_t2_scalar(codes, values, EB_TILE_ROWS, 64);
    else
        eb_unpack_t1_scalar(codes, values, EB_TILE_ROWS, EB_T1_BLOCK);
    for (uint32_t i = 0; i < p.columns * 4; i++) {
        const uint32_t r = row + i / 16 % 4, c = column + i / 64 * 16 + i % 16;
        if ((r >= matrix->rows || c >= matrix->columns) && codes[i] != 1)
            return 0;
    }
    return 1;
}

/* One of a tensor's matrices. */
static int matrix_in_range(const unsigned char *values, const eb_tensor *matrix) {
    for (uint32_t row = 0; row < matrix->rows; row += EB_TILE_ROWS)
        for (uint32_t column = 0; column < matrix->k;) {
            const piece p = piece_at(matrix, column);
            const int has_padding = row + EB_TILE_ROWS > matrix->rows || column + p.columns > matrix->columns;
            if (!codes_in_range(values, p) || (has_padding && !padding_is_zero(matrix, values, p, row, column)))
                return 0;
            values += p.bytes;
            column += p.columns;
        }
    return 1;
}

static int ternary_in_range(const eb_tensor *tensor) {
    eb_tensor matrix = *tensor;
    matrix.columns /= tensor->n_groups;
    for (uint32_t g = 0; g < tensor->n_groups; g++)
        if (!matrix_in_range((const unsigned char *)tensor->values + g * eb_matrix_bytes(tensor), &matrix))
            return 0;
    return 1;
}

/* u = code + 128 of row `row`, column `column`. */
static uint32_t head_value(const eb_head_planes *planes, const eb_tensor *head, uint32_t row, uint32_t column) {
    const uint8_t *tile = planes->high + row / 4 * head->band_bytes + column / 32 * 64 + row % 4 * 16;
    const size_t at = (size_t)row * (head->k / 4) + column / 256 * 64 + column % 64;
    const unsigned shift = column / 64 % 4 * 2;
    return (uint32_t)(tile[column % 16] >> column / 16 % 2 * 4 & 15) << 4 | (planes->middle[at] >> shift & 3) << 2 |
           (planes->low[at] >> shift & 3);
}

/* Codes -127 to 127, padding 0, and bounds that hold: else a step would pass over the best token. */
static int head_in_range(const eb_tensor *head) {
    const eb_head_planes planes = eb_planes_of(head);
    for (uint32_t row = 0; row < head->rows; row++) {
        int64_t high_squares = 0, middle_squares = 0;
        uint32_t bad = 0;
        for (uint32_t column = 0; column < head->k; column++) {
            const uint32_t u = head_value(&planes, head, row, column);
            if (column >= head->columns) {
                bad |= u != 128;
                continue;
            }
            const int32_t after_high = 2 * (int32_t)(u & 15) - 15, after_middle = 2 * (int32_t)(u & 3) - 3;
            bad |= u == 0;
            high_squares += after_high * after_high;
            middle_squares += after_middle * after_middle;
        }
        const double high = planes.high_bounds[row], middle = planes.middle_bounds[row];
        if (bad || !(high >= 0 && high * high >= (double)high_squares && high < 1e6) ||
            !(middle >= 0 && middle * middle >= (double)middle_squares && middle < 1e6))
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
    if (tensor->scales && !all_finite(tensor->scales, eb_scale_count(tensor)))
        return "a scale is not a finite number";
    switch (tensor->encoding) {
    case EB_F32:
        return all_finite(tensor->values, n) ? NULL : "a value is not a finite number";
    case EB_BF16:
        return all_finite_16(tensor->values, n, 0x7f80) ? NULL : "a value is not a finite number";
    case EB_F16:
        return all_finite_16(tensor->values, n, 0x7c00) ? NULL : "a value is not a finite number";
    case EB_I8:
        return i8_in_range(tensor->values, tensor) ? NULL : "a code is -128, or padding is not 0";
    case EB_T2:
        return ternary_in_range(tensor) ? NULL : "a code is 3, or padding is not code 1";
    case EB_T1:
        return ternary_in_range(tensor) ? NULL : "an index is above 26, or padding is not code 1";
    case EB_H8:
        return head_in_range(tensor) ? NULL : "a code is -128, padding is not 0, or a bound does not hold";
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
