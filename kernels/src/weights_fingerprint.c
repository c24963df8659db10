/* weights_fingerprint.c - a number for the weights of a model, the same in whichever layout a file has them. */
#include "fingerprint.h"
#include "model_file.h"
#include "ukernel.h"

enum {
    PIECE = 384,
    T1_PIECE_BYTES = 320,
    T2_PIECE_BYTES = 384
}; /* columns, and the bytes of a tile row that they take */

/* The codes of the first four rows, one in a byte. */
static uint64_t of_codes(uint64_t sum, const eb_tensor *tensor) {
    const int is_t1 = tensor->encoding == EB_T1;
    eb_unpack_t2_fn *unpack = is_t1 ? eb_unpack_t1_scalar : eb_unpack_t2_scalar;
    const uint8_t *w = tensor->values;
    uint8_t codes[EB_TILE_ROWS * PIECE];
    for (uint32_t k = 0; k < tensor->k; k += PIECE) {
        const uint32_t n = tensor->k - k < PIECE ? tensor->k - k : PIECE;
        unpack(codes, w, EB_TILE_ROWS, n);
        sum = eb_fingerprint(sum, codes, (uint64_t)EB_TILE_ROWS * n);
        w += is_t1 ? T1_PIECE_BYTES : T2_PIECE_BYTES;
    }
    return sum;
}

static uint64_t of_tensor(uint64_t sum, const eb_tensor *tensor) {
    if (!tensor->values)
        return sum;
    sum = eb_fingerprint(sum, &tensor->rows, sizeof tensor->rows);
    sum = eb_fingerprint(sum, &tensor->columns, sizeof tensor->columns);
    if (tensor->encoding == EB_F32) /* a norm */
        return eb_fingerprint(sum, tensor->values, (uint64_t)tensor->columns * sizeof(float));
    sum = eb_fingerprint(sum, tensor->scales, eb_scale_count(tensor) * sizeof(float));
    return of_codes(sum, tensor);
}

uint64_t eb_weights_fingerprint(const eb_model *model) {
    uint64_t sum = EB_FINGERPRINT_BEGIN;
    for (uint32_t layer = 0; model && layer < model->info.n_layers; layer++)
        for (unsigned place = 0; place < EB_N_LAYER_TENSORS; place++)
            sum = of_tensor(sum, &model->layers[layer].tensor[place]);
    return sum;
}
