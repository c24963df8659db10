/* model_tensors.c - section TENS: which tensors there are, and how their values and scales lie. */
#include "model_check.h"

enum { TENSOR_ENTRY_SIZE = 64 };

typedef struct tensor_role {
    uint32_t number, place; /* place: EB_TOKEN_EMBEDDING ... or EB_INPUT_NORM ... */
    const char *name;
    uint32_t encodings; /* a bit for each that is allowed */
} tensor_role;

enum {
    F32_BIT = 1u << EB_F32,
    BF16_BIT = 1u << EB_BF16,
    I8_BIT = 1u << EB_I8,
    TERNARY_BITS = 1u << EB_T2 | 1u << EB_T1,
    H8_BIT = 1u << EB_H8,
    F16_BIT = 1u << EB_F16
};

static const tensor_role model_roles[] = {
    {1, EB_TOKEN_EMBEDDING, "token_embedding", F32_BIT | BF16_BIT | F16_BIT | I8_BIT},
    {2, EB_HEAD, "head", H8_BIT},
    {3, EB_FINAL_NORM, "final_norm", F32_BIT},
    {4, EB_ROPE_INV_FREQ, "rope_inv_freq", F32_BIT}};

static const tensor_role layer_roles[] = {{16, EB_INPUT_NORM, "input_norm", F32_BIT},
                                          {17, EB_Q_PROJ, "q_proj", TERNARY_BITS},
                                          {18, EB_K_PROJ, "k_proj", TERNARY_BITS},
                                          {19, EB_V_PROJ, "v_proj", TERNARY_BITS},
                                          {20, EB_ATTN_SUB_NORM_WEIGHT, "attn_sub_norm", F32_BIT},
                                          {21, EB_O_PROJ, "o_proj", TERNARY_BITS},
                                          {22, EB_POST_ATTENTION_NORM, "post_attention_norm", F32_BIT},
                                          {23, EB_GATE_PROJ, "gate_proj", TERNARY_BITS},
                                          {24, EB_UP_PROJ, "up_proj", TERNARY_BITS},
                                          {25, EB_FFN_SUB_NORM_WEIGHT, "ffn_sub_norm", F32_BIT},
                                          {26, EB_DOWN_PROJ, "down_proj", TERNARY_BITS},
                                          {27, EB_Q_NORM, "q_norm", F32_BIT},
                                          {28, EB_K_NORM, "k_norm", F32_BIT},
                                          {33, EB_Q_PROJ_NORM, "q_proj_norm", F32_BIT},
                                          {34, EB_K_PROJ_NORM, "k_proj_norm", F32_BIT},
                                          {35, EB_V_PROJ_NORM, "v_proj_norm", F32_BIT},
                                          {37, EB_O_PROJ_NORM, "o_proj_norm", F32_BIT},
                                          {39, EB_GATE_PROJ_NORM, "gate_proj_norm", F32_BIT},
                                          {40, EB_UP_PROJ_NORM, "up_proj_norm", F32_BIT},
                                          {42, EB_DOWN_PROJ_NORM, "down_proj_norm", F32_BIT}};

enum {
    N_MODEL_ROLES = sizeof model_roles / sizeof model_roles[0],
    N_LAYER_ROLES = sizeof layer_roles / sizeof layer_roles[0]
};

const char *eb_layer_tensor_name(unsigned place) { return place < N_LAYER_ROLES ? layer_roles[place].name : "?"; }

static void model_shape(const eb_model_info *info, uint32_t place, uint32_t shape[2]) {
    const int is_table = place == EB_TOKEN_EMBEDDING || place == EB_HEAD;
    shape[0] = is_table ? info->vocab_size : 1;
    shape[1] = place == EB_ROPE_INV_FREQ ? info->head_dim / 2 : info->hidden_size;
}

static void layer_shape(const eb_model_info *info, uint32_t place, uint32_t shape[2]) {
    const uint32_t q = info->n_heads * info->head_dim, kv = info->n_kv_heads * info->head_dim;
    const uint32_t hidden = info->hidden_size, ffn = info->ffn_size;
    const uint32_t shapes[EB_N_LAYER_TENSORS][2] = {[EB_INPUT_NORM] = {1, hidden},
                                                    [EB_Q_PROJ] = {q, hidden},
                                                    [EB_K_PROJ] = {kv, hidden},
                                                    [EB_V_PROJ] = {kv, hidden},
                                                    [EB_ATTN_SUB_NORM_WEIGHT] = {1, q},
                                                    [EB_O_PROJ] = {hidden, q},
                                                    [EB_POST_ATTENTION_NORM] = {1, hidden},
                                                    [EB_GATE_PROJ] = {ffn, hidden},
                                                    [EB_UP_PROJ] = {ffn, hidden},
                                                    [EB_FFN_SUB_NORM_WEIGHT] = {1, ffn},
                                                    [EB_DOWN_PROJ] = {hidden, ffn},
                                                    [EB_Q_NORM] = {1, info->head_dim},
                                                    [EB_K_NORM] = {1, info->head_dim},
                                                    [EB_Q_PROJ_NORM] = {1, hidden},
                                                    [EB_K_PROJ_NORM] = {1, hidden},
                                                    [EB_V_PROJ_NORM] = {1, hidden},
                                                    [EB_O_PROJ_NORM] = {1, q},
                                                    [EB_GATE_PROJ_NORM] = {1, hidden},
                                                    [EB_UP_PROJ_NORM] = {1, hidden},
                                                    [EB_DOWN_PROJ_NORM] = {1, ffn}};
    shape[0] = shapes[place][0];
    shape[1] = shapes[place][1];
}

static int layer_has(const eb_config *config, uint32_t place) {
    if (place == EB_ATTN_SUB_NORM_WEIGHT)
        return (config->norms & EB_ATTN_SUB_NORM) != 0;
    if (place == EB_FFN_SUB_NORM_WEIGHT)
        return (config->norms & EB_FFN_SUB_NORM) != 0;
    if (place == EB_Q_NORM || place == EB_K_NORM)
        return (config->norms & EB_QK_NORM) != 0;
    if (place >= EB_Q_PROJ_NORM)
        return (config->norms & EB_PROJECTION_NORM) != 0;
    return 1;
}

/* How the values of a tensor lie: k, row_bytes and band_bytes. Of layout t1, 384 columns take 80 bytes a row. */
static void set_layout(eb_tensor *tensor) {
    const uint32_t columns = tensor->columns / tensor->n_groups;
    const uint64_t k = tensor->encoding == EB_H8 ? up(columns, 256) : to_64(columns);
    tensor->k = (uint32_t)k;
    switch (tensor->encoding) {
    case EB_F32:
        tensor->row_bytes = 4 * (uint64_t)columns;
        break;
    case EB_BF16:
    case EB_F16:
        tensor->row_bytes = 2 * (uint64_t)columns;
        break;
    case EB_I8:
        tensor->row_bytes = k;
        break;
    case EB_T2:
        tensor->row_bytes = k / 4;
        break;
    case EB_T1:
        tensor->row_bytes = k / 384 * 80 + k % 384 / 4;
        break;
    case EB_H8:
        tensor->row_bytes = k / 2;
        break;
    }
    tensor->band_bytes = 4 * tensor->row_bytes;
}

static uint64_t values_size(const eb_tensor *tensor) {
    switch (tensor->encoding) {
    case EB_T2:
    case EB_T1:
        return tensor->n_groups * eb_matrix_bytes(tensor);
    case EB_H8:
        return eb_matrix_bytes(tensor) + 2 * ((uint64_t)tensor->rows * tensor->k / 4) +
               2 * to_64(4 * (uint64_t)tensor->rows);
    default:
        return tensor->rows * tensor->row_bytes;
    }
}

eb_head_planes eb_planes_of(const eb_tensor *head) {
    const uint8_t *values = head->values;
    const uint64_t plane = (uint64_t)head->rows * head->k / 4;
    eb_head_planes planes = {.high = values, .middle = values + up(head->rows, 4) * head->row_bytes};
    planes.low = planes.middle + plane;
    planes.high_bounds = (const float *)(const void *)(planes.low + plane);
    planes.middle_bounds = planes.high_bounds + up(head->rows, 16);
    return planes;
}

/* "q_proj of layer 3" */
typedef struct tensor_name {
    char text[64];
} tensor_name;

static tensor_name name_of(const tensor_role *role, uint32_t layer) {
    eb_error text;
    if (layer == UINT32_MAX)
        eb_fail(&text, "%s", role->name);
    else
        eb_fail(&text, "%s of layer %u", role->name, layer);
    tensor_name name;
    eb_memcpy(name.text, text.text, sizeof name.text);
    name.text[sizeof name.text - 1] = 0;
    return name;
}

/* [size] bytes at `offset` of the file lie in DATA, aligned. */
static int in_data(const eb_section *data, uint64_t offset, uint64_t size) {
    return offset % 64 == 0 && offset >= data->offset && offset - data->offset <= data->size &&
           size <= data->size - (offset - data->offset);
}

/* Which weights share a scale: sets granularity and n_groups. Encodings with codes have scales, others none; i8 and h8 by row
 * alone, t2 alone by group. */
static eb_status check_scaling(const eb_model *model, const unsigned char *entry, const char *name, eb_tensor *tensor,
                               eb_error *error) {
    const uint32_t granularity = eb_load_u32(entry + 12), group = eb_load_u32(entry + 56);
    static const uint32_t possible[] = {[EB_F32] = 1u << EB_UNSCALED,
                                        [EB_BF16] = 1u << EB_UNSCALED,
                                        [EB_I8] = 1u << EB_BY_ROW,
                                        [EB_T2] = 1u << EB_BY_TENSOR | 1u << EB_BY_ROW | 1u << EB_BY_GROUP,
                                        [EB_T1] = 1u << EB_BY_TENSOR | 1u << EB_BY_ROW,
                                        [EB_H8] = 1u << EB_BY_ROW,
                                        [EB_F16] = 1u << EB_UNSCALED};
    if (granularity > EB_BY_GROUP || !(possible[tensor->encoding] >> granularity & 1))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: scale granularity %u does not go with encoding %u", model->name, name,
             granularity, tensor->encoding);
    if (granularity != EB_BY_GROUP ? group != 0 : !group || group % 64 || tensor->columns % group)
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: groups of %u of its %u columns do not go with scale granularity %u",
             model->name, name, group, tensor->columns, granularity);
    tensor->granularity = (eb_granularity)granularity;
    tensor->n_groups = group ? tensor->columns / group : 1;
    return EB_OK;
}

/* Where values and scales lie. */
static eb_status check_places(const eb_model *model, const unsigned char *entry, const char *name, eb_tensor *tensor,
                              eb_error *error) {
    const uint64_t offset = eb_load_u64(entry + 24), size = eb_load_u64(entry + 32);
    const uint64_t scales_offset = eb_load_u64(entry + 40), n_scales = eb_load_u64(entry + 48);
    const eb_section *data = eb_find_section(model, "DATA");
    if (size != values_size(tensor))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s has %llu bytes of values; its shape needs %llu", model->name, name, (ull)size,
             (ull)values_size(tensor));
    if (!in_data(data, offset, size))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: its values (%llu bytes at %llu) are not aligned inside DATA", model->name,
             name, (ull)size, (ull)offset);
    if (n_scales != eb_scale_count(tensor))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s has %llu scales; it needs %llu", model->name, name, (ull)n_scales,
             (ull)eb_scale_count(tensor));
    if (n_scales ? !in_data(data, scales_offset, 4 * n_scales) : scales_offset != 0)
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: its scales (at %llu) are not aligned inside DATA", model->name, name,
             (ull)scales_offset);
    tensor->values = model->base + offset;
    if (n_scales)
        tensor->scales = (const float *)(const void *)(model->base + scales_offset);
    return EB_OK;
}

static eb_status check_tensor(eb_model *model, const unsigned char *entry, const tensor_role *role,
                              const uint32_t shape[2], eb_tensor *out, eb_error *error) {
    const tensor_name name = name_of(role, eb_load_u32(entry + 4));
    const uint32_t encoding = eb_load_u32(entry + 8);
    const uint32_t rows = eb_load_u32(entry + 16), columns = eb_load_u32(entry + 20);
    if (out->values)
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s stands twice", model->name, name.text);
    if (encoding > EB_F16 || encoding < EB_F32)
        FAIL(EB_UNSUPPORTED, "%s: TENS: %s: encoding %u is not known to this library", model->name, name.text,
             encoding);
    if (!(role->encodings >> encoding & 1))
        FAIL(EB_UNSUPPORTED, "%s: TENS: %s: encoding %u cannot be used for it", model->name, name.text, encoding);
    if (rows != shape[0] || columns != shape[1])
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s is %u x %u; CONF asks for %u x %u", model->name, name.text, rows, columns,
             shape[0], shape[1]);
    if (!all_zero(entry + 60, 4))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: reserved bytes are not zero", model->name, name.text);
    eb_tensor tensor = {.encoding = (eb_encoding)encoding, .rows = rows, .columns = columns};
    eb_status status = check_scaling(model, entry, name.text, &tensor, error);
    if (status)
        return status;
    set_layout(&tensor);
    if ((status = check_places(model, entry, name.text, &tensor, error)))
        return status;
    *out = tensor;
    return EB_OK;
}

static eb_status check_entry(eb_model *model, const unsigned char *entry, eb_error *error) {
    const uint32_t number = eb_load_u32(entry), layer = eb_load_u32(entry + 4);
    uint32_t shape[2];
    for (unsigned r = 0; r < N_MODEL_ROLES; r++)
        if (model_roles[r].number == number) {
            if (layer != UINT32_MAX)
                FAIL(EB_BAD_FORMAT, "%s: TENS: %s has no layer, and the file says %u", model->name, model_roles[r].name,
                     layer);
            model_shape(&model->info, model_roles[r].place, shape);
            return check_tensor(model, entry, &model_roles[r], shape, &model->tensor[model_roles[r].place], error);
        }
    for (unsigned r = 0; r < N_LAYER_ROLES; r++)
        if (layer_roles[r].number == number) {
            if (layer >= model->info.n_layers)
                FAIL(EB_BAD_FORMAT, "%s: TENS: %s of layer %u; CONF says %u layers", model->name, layer_roles[r].name,
                     layer, model->info.n_layers);
            if (!layer_has(&model->config, layer_roles[r].place))
                FAIL(EB_BAD_FORMAT, "%s: TENS: %s of layer %u is there, and CONF says the model has none", model->name,
                     layer_roles[r].name, layer);
            layer_shape(&model->info, layer_roles[r].place, shape);
            return check_tensor(model, entry, &layer_roles[r], shape,
                                &model->layers[layer].tensor[layer_roles[r].place], error);
        }
    FAIL(EB_UNSUPPORTED, "%s: TENS: role %u is not known to this library", model->name, number);
}

/* What a decode step reads of a tensor: of the head the high plane and its bounds. */
static uint64_t read_bytes(const eb_tensor *tensor) {
    if (!tensor->values)
        return 0;
    if (tensor->encoding == EB_H8)
        return eb_matrix_bytes(tensor) + 4 * (uint64_t)tensor->rows + 4 * eb_scale_count(tensor);
    return values_size(tensor) + 4 * eb_scale_count(tensor);
}

/* Every entry of the table. */
static eb_status check_entries(eb_model *model, eb_error *error) {
    const eb_section *section = eb_find_section(model, "TENS");
    if (section->size % TENSOR_ENTRY_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: section TENS has %llu bytes, no multiple of %d", model->name, (ull)section->size,
             TENSOR_ENTRY_SIZE);
    for (uint64_t at = 0; at < section->size; at += TENSOR_ENTRY_SIZE) {
        const eb_status status = check_entry(model, model->base + section->offset + at, error);
        if (status)
            return status;
    }
    return EB_OK;
}

/* That no tensor is missing; adds up what a decode step reads of all. */
static eb_status check_present(const eb_model *model, uint64_t *bytes_per_token, eb_error *error) {
    uint64_t read = 0;
    for (unsigned r = 0; r < N_MODEL_ROLES; r++) {
        const eb_tensor *tensor = &model->tensor[model_roles[r].place];
        if (!tensor->values)
            FAIL(EB_BAD_FORMAT, "%s: TENS: %s is missing", model->name, model_roles[r].name);
        read += model_roles[r].place == EB_TOKEN_EMBEDDING ? tensor->row_bytes : read_bytes(tensor);
    }
    for (uint32_t layer = 0; layer < model->info.n_layers; layer++)
        for (unsigned r = 0; r < N_LAYER_ROLES; r++) {
            const eb_tensor *tensor = &model->layers[layer].tensor[layer_roles[r].place];
            if (!tensor->values && layer_has(&model->config, layer_roles[r].place))
                FAIL(EB_BAD_FORMAT, "%s: TENS: %s of layer %u is missing", model->name, layer_roles[r].name, layer);
            read += read_bytes(tensor);
        }
    *bytes_per_token = read;
    return EB_OK;
}

/* Positions are multiplied with these: what stands here bounds the angles that RoPE must be able to reduce. */
static eb_status check_frequencies(const eb_model *model, eb_error *error) {
    const float *inv_freq = model->tensor[EB_ROPE_INV_FREQ].values;
    for (uint32_t i = 0; i < model->info.head_dim / 2; i++)
        if (!(inv_freq[i] >= 0 && inv_freq[i] <= 1))
            FAIL(EB_BAD_FORMAT, "%s: rope_inv_freq: element %u is not between 0 and 1", model->name, i);
    return EB_OK;
}

eb_status eb_check_tensors(eb_model *model, eb_error *error) {
    const size_t layers_size = (size_t)model->info.n_layers * sizeof(eb_layer);
    model->layers = eb_alloc(&model->host, 1, layers_size);
    if (!model->layers)
        FAIL(EB_NO_MEMORY, "%s: no memory for the table of %u layers", model->name, model->info.n_layers);
    eb_memset(model->layers, 0, layers_size);
    model->info.weight_bytes = eb_find_section(model, "DATA")->size;
    eb_status status;
    if ((status = check_entries(model, error)) || (status = check_present(model, &model->info.bytes_per_token, error)))
        return status;
    return check_frequencies(model, error);
}
