/* adapter.h - an adapter file, checked (docs/adapter-format.md): low-rank pairs for projections of a model. */
#ifndef EB_ADAPTER_H
#define EB_ADAPTER_H

#include "model_file.h"

enum { EB_N_PROJECTIONS = 7, EB_MAX_RANK = 1024 };

/* y += scale * B (A x). Values are f16, or int8 with a scale for each rank of A and each row of B. */
typedef struct eb_low_rank {
    const void *a;         /* [rank][columns, filled up to a multiple of 16] */
    const void *b;         /* [rows / 16, rounded up][rank][16] */
    const float *a_scales; /* [rank], NULL with EB_F16 */
    const float *b_scales; /* [rows] */
    float scale;
    uint32_t rank, rows, columns; /* rank 0: the adapter has nothing for this projection */
    eb_encoding encoding;         /* EB_F16 or EB_I8 */
} eb_low_rank;

enum { EB_ADAPTER_NAME = 64 };

struct eb_adapter {
    eb_host host;
    const eb_model *model;
    char name[EB_ADAPTER_NAME + 1];
    uint64_t fingerprint; /* of the file; never 0 */
    uint32_t widest_rank;
    int has_gate;       /* a pair for gate_proj or up_proj */
    eb_low_rank *pairs; /* [n_layers][EB_N_PROJECTIONS] */
};

/* The adapter's pair for a projection of a layer (EB_Q_PROJ ...), or NULL. `adapter` may be NULL. */
const eb_low_rank *eb_adapter_pair(const eb_adapter *adapter, uint32_t layer, unsigned projection);

#endif
