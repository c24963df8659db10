/* model_file.h - a model file, mapped and checked (docs/model-format.md). */
#ifndef EB_MODEL_FILE_H
#define EB_MODEL_FILE_H

#include "edgebit.h"

enum { EB_MAX_SECTIONS = 32, EB_MAX_STOP_TOKENS = 8 };

typedef enum eb_encoding {
    EB_F32 = 1,
    EB_BF16 = 2,
    EB_I8 = 3,
    EB_T2 = 4,
    EB_T1 = 5,
    EB_H8 = 6,
    EB_F16 = 7
} eb_encoding;
typedef enum eb_activation { EB_RELU2 = 1, EB_SILU = 2 } eb_activation;
typedef enum eb_quantisation { EB_INT8 = 1, EB_INT15 = 2 } eb_quantisation; /* of projections' inputs */
typedef enum eb_granularity { EB_UNSCALED = 0, EB_BY_TENSOR = 1, EB_BY_ROW = 2, EB_BY_GROUP = 3 } eb_granularity;
enum { EB_ATTN_SUB_NORM = 1, EB_FFN_SUB_NORM = 2, EB_QK_NORM = 4, EB_PROJECTION_NORM = 8 }; /* of eb_config.norms */

/* Tensors by place: those of the model, then those of each layer. The file's role numbers are in model_tensors.c. */
enum { EB_TOKEN_EMBEDDING, EB_HEAD, EB_FINAL_NORM, EB_ROPE_INV_FREQ, EB_N_MODEL_TENSORS };
enum {
    EB_INPUT_NORM,
    EB_Q_PROJ,
    EB_K_PROJ,
    EB_V_PROJ,
    EB_ATTN_SUB_NORM_WEIGHT,
    EB_O_PROJ,
    EB_POST_ATTENTION_NORM,
    EB_GATE_PROJ,
    EB_UP_PROJ,
    EB_FFN_SUB_NORM_WEIGHT,
    EB_DOWN_PROJ,
    EB_Q_NORM,
    EB_K_NORM,
    EB_Q_PROJ_NORM,
    EB_K_PROJ_NORM,
    EB_V_PROJ_NORM,
    EB_O_PROJ_NORM,
    EB_GATE_PROJ_NORM,
    EB_UP_PROJ_NORM,
    EB_DOWN_PROJ_NORM,
    EB_N_LAYER_TENSORS
};

typedef struct eb_tensor {
    const void *values;  /* NULL: this model has no such tensor */
    const float *scales; /* [n_groups][rows], or 1 with EB_BY_TENSOR; NULL with EB_UNSCALED */
    eb_encoding encoding;
    eb_granularity granularity;
    uint32_t rows, columns;
    uint32_t n_groups;   /* matrices that the columns are split into, one after the other: 1, but with EB_BY_GROUP */
    uint32_t k;          /* columns of each as stored: filled up to whole blocks */
    uint64_t row_bytes;  /* of one row of each; of the high plane with encoding h8; a quarter of `band_bytes` */
    uint64_t band_bytes; /* of the four rows of a tile, one tile after the other */
} eb_tensor;

/* The parts of a tensor with encoding h8: code + 128 = 16 high + 4 middle + low. */
typedef struct eb_head_planes {
    const uint8_t *high;         /* in tiles */
    const uint8_t *middle, *low; /* [rows][k / 4] */
    const float *high_bounds;    /* [rows] at least the length of 2 (4 middle + low) - 15 */
    const float *middle_bounds;  /* [rows] at least the length of 2 low - 3 */
} eb_head_planes;

typedef struct eb_layer {
    eb_tensor tensor[EB_N_LAYER_TENSORS];
} eb_layer;

typedef struct eb_config {
    float rms_norm_eps, projection_norm_eps;
    float rope_factor; /* of rotated queries and keys */
    eb_activation activation;
    eb_quantisation quantisation;
    uint32_t norms;
} eb_config;

typedef struct eb_section {
    char tag[4];
    uint32_t crc;
    uint64_t offset, size;
} eb_section;

struct eb_model {
    eb_host host;
    char name[64]; /* the file's name without its folder, for messages */
    const unsigned char *base;
    uint64_t size;
    void *mapping; /* NULL where the bytes are the caller's */
    size_t mapping_size;
    eb_model_info info;
    eb_config config;
    eb_section sections[EB_MAX_SECTIONS];
    uint32_t n_sections;
    eb_tensor tensor[EB_N_MODEL_TENSORS];
    eb_layer *layers; /* [info.n_layers] */
};

/* The section of that tag, or NULL. */
const eb_section *eb_find_section(const eb_model *model, const char *tag);

/* Bytes from one of a tensor's matrices to the next. */
static inline uint64_t eb_matrix_bytes(const eb_tensor *tensor) {
    return ((uint64_t)tensor->rows + 3) / 4 * tensor->band_bytes;
}

static inline uint64_t eb_scale_count(const eb_tensor *tensor) {
    if (tensor->granularity == EB_UNSCALED)
        return 0;
    return tensor->granularity == EB_BY_TENSOR ? 1 : (uint64_t)tensor->n_groups * tensor->rows;
}

eb_head_planes eb_planes_of(const eb_tensor *head);

/* The name of a layer's tensor (EB_INPUT_NORM ...), for messages. */
const char *eb_layer_tensor_name(unsigned place);

#endif
