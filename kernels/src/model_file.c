/* model_file.c - maps a model file and checks it: nothing of it is used as a size, an offset or an index before that.
 *
 * All arithmetic is in 64 bits on numbers of at most 2^22 (a row, a column), or by subtraction from a size that is
 * known to be larger, so none of it can overflow. */
#include "model_file.h"
#include "crc32.h"
#include "mem.h"
#include "status.h"

#define FAIL(status, ...)                                                                                              \
    do {                                                                                                               \
        eb_fail(error, __VA_ARGS__);                                                                                   \
        return status;                                                                                                 \
    } while (0)

typedef unsigned long long ull; /* for %llu */

enum { VERSION = 2, HEADER_SIZE = 64, SECTION_ENTRY_SIZE = 32, CONF_SIZE = 128, TENSOR_ENTRY_SIZE = 64 };
static const unsigned char magic[8] = {0x89, 'E', 'B', 'M', '\r', '\n', 0x1a, '\n'};

static int all_zero(const unsigned char *bytes, uint64_t size) {
    unsigned char any = 0;
    for (uint64_t i = 0; i < size; i++)
        any |= bytes[i];
    return !any;
}

static uint64_t up(uint64_t n, uint64_t step) { return (n + step - 1) / step * step; }
static uint64_t to_64(uint64_t n) { return up(n, 64); }

const eb_section *eb_find_section(const eb_model *model, const char *tag) {
    for (uint32_t s = 0; s < model->n_sections; s++)
        if (!eb_memcmp(model->sections[s].tag, tag, 4))
            return &model->sections[s];
    return NULL;
}

/* ---- header and section table ---- */

static eb_status check_header(const eb_model *model, eb_error *error) {
    const unsigned char *head = model->base;
    if (model->size < HEADER_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: %llu bytes are too few for a model file", model->name, (ull)model->size);
    if (eb_memcmp(head, magic, sizeof magic))
        FAIL(EB_BAD_FORMAT, "%s: not a model file (it does not begin with \\x89EBM)", model->name);
    if (eb_crc32(0, head, 28) != eb_load_u32(head + 28))
        FAIL(EB_BAD_FORMAT, "%s: the header's sum is wrong: the file is damaged. Copy it again", model->name);
    if (eb_load_u32(head + 8) != VERSION)
        FAIL(EB_UNSUPPORTED, "%s: version %u of the model format; this library knows version %d", model->name,
             eb_load_u32(head + 8), VERSION);
    if (eb_load_u64(head + 16) != model->size)
        FAIL(EB_BAD_FORMAT, "%s: the header says %llu bytes, there are %llu: a copy cut short. Copy it again",
             model->name, (ull)eb_load_u64(head + 16), (ull)model->size);
    if (!all_zero(head + 32, 32))
        FAIL(EB_BAD_FORMAT, "%s: reserved bytes of the header are not zero", model->name);
    const uint32_t n = eb_load_u32(head + 12);
    if (n < 1 || n > EB_MAX_SECTIONS)
        FAIL(EB_BAD_FORMAT, "%s: %u sections; there can be 1 to %d", model->name, n, EB_MAX_SECTIONS);
    if (HEADER_SIZE + (uint64_t)n * SECTION_ENTRY_SIZE > model->size)
        FAIL(EB_BAD_FORMAT, "%s: the table of %u sections goes past the end of the file", model->name, n);
    if (eb_crc32(0, head + HEADER_SIZE, (size_t)n * SECTION_ENTRY_SIZE) != eb_load_u32(head + 24))
        FAIL(EB_BAD_FORMAT, "%s: the section table's sum is wrong: the file is damaged. Copy it again", model->name);
    return EB_OK;
}

static int is_tag_char(unsigned char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static int is_known_tag(const char *tag) {
    static const char known[][5] = {"CONF", "TENS", "DATA", "TOKN", "PRMT", "META", "PROB"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!eb_memcmp(known[i], tag, 4))
            return 1;
    return 0;
}

static eb_status check_sections(eb_model *model, eb_error *error) {
    const uint32_t n = eb_load_u32(model->base + 12);
    uint64_t end = HEADER_SIZE + (uint64_t)n * SECTION_ENTRY_SIZE;
    for (uint32_t s = 0; s < n; s++) {
        const unsigned char *entry = model->base + HEADER_SIZE + s * SECTION_ENTRY_SIZE;
        eb_section section = {
            .crc = eb_load_u32(entry + 4), .offset = eb_load_u64(entry + 8), .size = eb_load_u64(entry + 16)};
        eb_memcpy(section.tag, entry, 4);
        char tag[5] = {0};
        eb_memcpy(tag, entry, 4);
        for (int i = 0; i < 4; i++)
            if (!is_tag_char((unsigned char)tag[i]))
                FAIL(EB_BAD_FORMAT, "%s: section %u has a tag that is not letters and digits", model->name, s);
        if (eb_find_section(model, tag))
            FAIL(EB_BAD_FORMAT, "%s: section %s stands twice", model->name, tag);
        if (!is_known_tag(tag) && tag[0] >= 'A' && tag[0] <= 'Z')
            FAIL(EB_UNSUPPORTED, "%s: section %s is not known to this library, and the model needs it", model->name,
                 tag);
        if (!all_zero(entry + 24, 8))
            FAIL(EB_BAD_FORMAT, "%s: section %s: reserved bytes of its table entry are not zero", model->name, tag);
        if (section.offset != to_64(end))
            FAIL(EB_BAD_FORMAT, "%s: section %s begins at byte %llu, but the place after the one before it is %llu",
                 model->name, tag, (ull)section.offset, (ull)to_64(end));
        if (section.offset > model->size || section.size > model->size - section.offset)
            FAIL(EB_BAD_FORMAT, "%s: section %s (%llu bytes at %llu) goes past the end of the file, %llu bytes",
                 model->name, tag, (ull)section.size, (ull)section.offset, (ull)model->size);
        if (!all_zero(model->base + end, section.offset - end))
            FAIL(EB_BAD_FORMAT, "%s: the bytes between two sections, before %s, are not zero", model->name, tag);
        const int is_data = !eb_memcmp(tag, "DATA", 4);
        if (!is_data && eb_crc32(0, model->base + section.offset, (size_t)section.size) != section.crc)
            FAIL(EB_BAD_FORMAT, "%s: section %s: its sum is wrong: the file is damaged. Copy it again", model->name,
                 tag);
        end = section.offset + section.size;
        model->sections[model->n_sections++] = section;
    }
    if (model->size != to_64(end) || !all_zero(model->base + end, model->size - end))
        FAIL(EB_BAD_FORMAT, "%s: after the last section, which ends at byte %llu, the file has more than its zeros",
             model->name, (ull)end);
    static const char needed[][5] = {"CONF", "TENS", "DATA", "META"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (!eb_find_section(model, needed[i]))
            FAIL(EB_BAD_FORMAT, "%s: section %s is missing", model->name, needed[i]);
    return EB_OK;
}

/* ---- CONF ---- */

static eb_status check_range(const eb_model *model, const char *what, uint32_t value, uint32_t low, uint32_t high,
                             eb_error *error) {
    if (value < low || value > high)
        FAIL(EB_BAD_FORMAT, "%s: CONF: %s is %u; it can be %u to %u", model->name, what, value, low, high);
    return EB_OK;
}

static eb_status check_token(const eb_model *model, const char *what, int32_t token, eb_error *error) {
    if (token < -1 || (token >= 0 && (uint32_t)token >= model->info.vocab_size))
        FAIL(EB_BAD_FORMAT, "%s: CONF: %s %d is outside the vocabulary of %u", model->name, what, token,
             model->info.vocab_size);
    return EB_OK;
}

static eb_status check_config(eb_model *model, eb_error *error) {
    const eb_section *section = eb_find_section(model, "CONF");
    if (section->size != CONF_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: section CONF has %llu bytes; it must have %d", model->name, (ull)section->size,
             CONF_SIZE);
    const unsigned char *conf = model->base + section->offset;
    eb_model_info *info = &model->info;
    const struct {
        const char *name;
        uint32_t *place;
        uint32_t high;
    } sizes[] = {{"hidden_size", &info->hidden_size, 65536}, {"ffn_size", &info->ffn_size, 262144},
                 {"n_layers", &info->n_layers, 1024},        {"n_heads", &info->n_heads, 1024},
                 {"n_kv_heads", &info->n_kv_heads, 1024},    {"head_dim", &info->head_dim, 1024},
                 {"vocab_size", &info->vocab_size, 2097152}, {"context_max", &info->context_max, 16777216}};
    eb_status status;
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *sizes[i].place = eb_load_u32(conf + 4 * i);
        if ((status = check_range(model, sizes[i].name, *sizes[i].place, 1, sizes[i].high, error)))
            return status;
    }
    if (info->n_heads % info->n_kv_heads)
        FAIL(EB_BAD_FORMAT, "%s: CONF: n_heads %u is no multiple of n_kv_heads %u", model->name, info->n_heads,
             info->n_kv_heads);
    if (info->head_dim % 2)
        FAIL(EB_BAD_FORMAT, "%s: CONF: head_dim %u is odd", model->name, info->head_dim);
    if (info->n_heads * info->head_dim > 262144) /* at most 2^20: no overflow */
        FAIL(EB_BAD_FORMAT, "%s: CONF: n_heads x head_dim is %u; it can be at most 262144", model->name,
             info->n_heads * info->head_dim);

    const float eps = eb_load_f32(conf + 32);
    if (!(eps > 0 && eps <= 3.4028234e38f))
        FAIL(EB_BAD_FORMAT, "%s: CONF: rms_norm_eps is not a positive number", model->name);
    model->config.rms_norm_eps = eps;
    const uint32_t activation = eb_load_u32(conf + 36), norms = eb_load_u32(conf + 40);
    if (activation != EB_RELU2 && activation != EB_SILU)
        FAIL(EB_UNSUPPORTED, "%s: CONF: activation %u is not known to this library", model->name, activation);
    if (norms & ~(uint32_t)(EB_ATTN_SUB_NORM | EB_FFN_SUB_NORM))
        FAIL(EB_UNSUPPORTED, "%s: CONF: norms 0x%x are not known to this library", model->name, norms);
    if (eb_load_u32(conf + 44) != 1)
        FAIL(EB_UNSUPPORTED, "%s: CONF: activation quantisation %u is not known to this library", model->name,
             eb_load_u32(conf + 44));
    if (eb_load_u32(conf + 48) != 1)
        FAIL(EB_UNSUPPORTED, "%s: CONF: RoPE style %u is not known to this library", model->name,
             eb_load_u32(conf + 48));
    if ((status = check_range(model, "head_tied", eb_load_u32(conf + 52), 0, 1, error)))
        return status;
    model->config.activation = (eb_activation)activation;
    model->config.norms = norms;

    info->bos_token = eb_load_i32(conf + 56);
    info->n_stop_tokens = eb_load_u32(conf + 60);
    if ((status = check_token(model, "the begin-of-text token", info->bos_token, error)) ||
        (status = check_range(model, "the number of stop tokens", info->n_stop_tokens, 0, EB_MAX_STOP_TOKENS, error)))
        return status;
    for (uint32_t i = 0; i < EB_MAX_STOP_TOKENS; i++) {
        info->stop_tokens[i] = eb_load_i32(conf + 64 + 4 * i);
        if ((status = check_token(model, "stop token", info->stop_tokens[i], error)))
            return status;
        if ((info->stop_tokens[i] < 0) != (i >= info->n_stop_tokens))
            FAIL(EB_BAD_FORMAT, "%s: CONF: %u stop tokens are promised, and number %u is %d", model->name,
                 info->n_stop_tokens, i + 1, info->stop_tokens[i]);
    }
    if (!all_zero(conf + 96, 32))
        FAIL(EB_BAD_FORMAT, "%s: CONF: reserved bytes are not zero", model->name);
    return EB_OK;
}

/* ---- TENS ---- */

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
    H8_BIT = 1u << EB_H8
};

static const tensor_role model_roles[] = {{1, EB_TOKEN_EMBEDDING, "token_embedding", F32_BIT | BF16_BIT | I8_BIT},
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
                                          {26, EB_DOWN_PROJ, "down_proj", TERNARY_BITS}};

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
                                                    [EB_DOWN_PROJ] = {hidden, ffn}};
    shape[0] = shapes[place][0];
    shape[1] = shapes[place][1];
}

static int layer_has(const eb_config *config, uint32_t place) {
    if (place == EB_ATTN_SUB_NORM_WEIGHT)
        return (config->norms & EB_ATTN_SUB_NORM) != 0;
    if (place == EB_FFN_SUB_NORM_WEIGHT)
        return (config->norms & EB_FFN_SUB_NORM) != 0;
    return 1;
}

/* How the values of a tensor lie: k, row_bytes and group_bytes. Of layout t1, 384 columns take 80 bytes a row. */
static void set_layout(eb_tensor *tensor) {
    const uint32_t columns = tensor->columns;
    const uint64_t k = tensor->encoding == EB_H8 ? up(columns, 256) : to_64(columns);
    tensor->k = (uint32_t)k;
    switch (tensor->encoding) {
    case EB_F32:
        tensor->row_bytes = 4 * (uint64_t)columns;
        break;
    case EB_BF16:
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
    tensor->group_bytes = 4 * tensor->row_bytes;
}

static uint64_t values_size(const eb_tensor *tensor) {
    const uint64_t in_groups = up(tensor->rows, 4) * tensor->row_bytes;
    switch (tensor->encoding) {
    case EB_T2:
    case EB_T1:
        return in_groups;
    case EB_H8:
        return in_groups + 2 * ((uint64_t)tensor->rows * tensor->k / 4) + 2 * to_64(4 * (uint64_t)tensor->rows);
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

static eb_status check_tensor(eb_model *model, const unsigned char *entry, const tensor_role *role,
                              const uint32_t shape[2], eb_tensor *out, eb_error *error) {
    const tensor_name name = name_of(role, eb_load_u32(entry + 4));
    const uint32_t encoding = eb_load_u32(entry + 8), granularity = eb_load_u32(entry + 12);
    const uint32_t rows = eb_load_u32(entry + 16), columns = eb_load_u32(entry + 20);
    const uint64_t offset = eb_load_u64(entry + 24), size = eb_load_u64(entry + 32);
    const uint64_t scales_offset = eb_load_u64(entry + 40), n_scales = eb_load_u64(entry + 48);
    const eb_section *data = eb_find_section(model, "DATA");

    if (out->values)
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s stands twice", model->name, name.text);
    if (encoding > EB_H8 || encoding < EB_F32)
        FAIL(EB_UNSUPPORTED, "%s: TENS: %s: encoding %u is not known to this library", model->name, name.text,
             encoding);
    if (!(role->encodings >> encoding & 1))
        FAIL(EB_UNSUPPORTED, "%s: TENS: %s: encoding %u cannot be used for it", model->name, name.text, encoding);
    if (rows != shape[0] || columns != shape[1])
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s is %u x %u; CONF asks for %u x %u", model->name, name.text, rows, columns,
             shape[0], shape[1]);
    eb_tensor tensor = {
        .encoding = (eb_encoding)encoding, .by_row = granularity == 2, .rows = rows, .columns = columns};
    set_layout(&tensor);
    if (size != values_size(&tensor))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s has %llu bytes of values; its shape needs %llu", model->name, name.text,
             (ull)size, (ull)values_size(&tensor));
    if (!in_data(data, offset, size))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: its values (%llu bytes at %llu) are not aligned inside DATA", model->name,
             name.text, (ull)size, (ull)offset);
    const int by_row_only = encoding == EB_I8 || encoding == EB_H8;
    const int scaled = by_row_only || encoding == EB_T2 || encoding == EB_T1;
    const uint64_t wanted_scales = granularity == 2 ? rows : granularity;
    if (granularity > 2 || (granularity != 0) != scaled || (by_row_only && granularity != 2))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: scale granularity %u does not go with encoding %u", model->name, name.text,
             granularity, encoding);
    if (n_scales != wanted_scales)
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s has %llu scales; it needs %llu", model->name, name.text, (ull)n_scales,
             (ull)wanted_scales);
    if (scaled ? !in_data(data, scales_offset, 4 * n_scales) : scales_offset != 0)
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: its scales (at %llu) are not aligned inside DATA", model->name, name.text,
             (ull)scales_offset);
    if (!all_zero(entry + 56, 8))
        FAIL(EB_BAD_FORMAT, "%s: TENS: %s: reserved bytes are not zero", model->name, name.text);

    tensor.values = model->base + offset;
    if (scaled)
        tensor.scales = (const float *)(const void *)(model->base + scales_offset);
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
    const uint64_t n_scales = tensor->scales ? (tensor->by_row ? tensor->rows : 1) : 0;
    if (tensor->encoding == EB_H8)
        return up(tensor->rows, 4) * tensor->row_bytes + 4 * (uint64_t)tensor->rows + 4 * n_scales;
    return values_size(tensor) + 4 * n_scales;
}

static eb_status check_tensors(eb_model *model, eb_error *error) {
    const eb_section *section = eb_find_section(model, "TENS");
    if (section->size % TENSOR_ENTRY_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: section TENS has %llu bytes, no multiple of %d", model->name, (ull)section->size,
             TENSOR_ENTRY_SIZE);
    const size_t layers_size = (size_t)model->info.n_layers * sizeof(eb_layer);
    model->layers = eb_alloc(&model->host, 1, layers_size);
    if (!model->layers)
        FAIL(EB_NO_MEMORY, "%s: no memory for the table of %u layers", model->name, model->info.n_layers);
    eb_memset(model->layers, 0, layers_size);
    for (uint64_t at = 0; at < section->size; at += TENSOR_ENTRY_SIZE) {
        const eb_status status = check_entry(model, model->base + section->offset + at, error);
        if (status)
            return status;
    }
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
    /* Positions are multiplied with these: what stands here bounds the angles that RoPE must be able to reduce. */
    const float *inv_freq = model->tensor[EB_ROPE_INV_FREQ].values;
    for (uint32_t i = 0; i < model->info.head_dim / 2; i++)
        if (!(inv_freq[i] >= 0 && inv_freq[i] <= 1))
            FAIL(EB_BAD_FORMAT, "%s: rope_inv_freq: element %u is not between 0 and 1", model->name, i);
    model->info.weight_bytes = eb_find_section(model, "DATA")->size;
    model->info.bytes_per_token = read;
    return EB_OK;
}

/* ---- opening and closing ---- */

static eb_status check_model(eb_model *model, eb_error *error) {
    eb_status status = check_header(model, error);
    if (!status)
        status = check_sections(model, error);
    if (!status)
        status = check_config(model, error);
    if (!status)
        status = check_tensors(model, error);
    return status;
}

/* The last part of a path, cut to fit. */
static void set_name(eb_model *model, const char *path) {
    const char *last = path;
    for (const char *c = path; *c; c++)
        if (*c == '/' && c[1])
            last = c + 1;
    size_t i = 0;
    for (; last[i] && i + 1 < sizeof model->name; i++)
        model->name[i] = last[i];
    model->name[i] = 0;
}

static eb_status new_model(const eb_host *host, const char *name, eb_model **out, eb_error *error) {
    const eb_status status = eb_host_check(host, error);
    if (status)
        return status;
    *out = eb_alloc(host, 1, sizeof(eb_model));
    if (!*out)
        FAIL(EB_NO_MEMORY, "%s: no memory for the model's table", name);
    eb_memset(*out, 0, sizeof(eb_model));
    (*out)->host = *host;
    set_name(*out, name);
    return EB_OK;
}

/* Maps [size] bytes at `offset` of the open file `fd` into model->base; size 0: up to the file's end. */
static eb_status map(eb_model *model, int fd, uint64_t offset, uint64_t size, eb_error *error) {
    enum { SEEK_END_ = 2, PROT_READ_ = 1, LARGEST_PAGE = 65536 };
    const int64_t end = model->host.lseek(fd, 0, SEEK_END_);
    if (end < 0)
        FAIL(EB_IO, "%s: its size cannot be read: not a plain file", model->name);
    if (offset > (uint64_t)end || size > (uint64_t)end - offset)
        FAIL(EB_BAD_FORMAT, "%s: %llu bytes at %llu were asked for, the file has %llu", model->name, (ull)size,
             (ull)offset, (ull)end);
    if (!size)
        size = (uint64_t)end - offset;
    if (size < HEADER_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: %llu bytes are too few for a model file", model->name, (ull)size);
    const uint64_t before = offset % LARGEST_PAGE; /* a mapping begins with a page, of whatever size */
    if (size > SIZE_MAX / 2)
        FAIL(EB_NO_MEMORY, "%s: too large to map on this machine", model->name);
    void *mapping = model->host.mmap(NULL, (size_t)(size + before), PROT_READ_, model->host.map_private, fd,
                                     (int64_t)(offset - before));
    if (mapping == (void *)-1)
        FAIL(EB_IO, "%s: %llu bytes cannot be mapped", model->name, (ull)size);
    model->mapping = mapping;
    model->mapping_size = (size_t)(size + before);
    model->base = (const unsigned char *)mapping + before;
    model->size = size;
    return EB_OK;
}

eb_status eb_model_open(const eb_host *host, const char *path, uint64_t offset, uint64_t size, eb_model **out,
                        eb_error *error) {
    if (!path || !out)
        FAIL(EB_BAD_ARGUMENT, "eb_model_open: path or out is null");
    *out = NULL;
    eb_model *model = NULL;
    eb_status status = new_model(host, path, &model, error);
    if (status)
        return status;
    if (offset % 64) {
        eb_fail(error, "%s: the model's place in it, byte %llu, is no multiple of 64", model->name, (ull)offset);
        status = EB_BAD_ARGUMENT;
    }
    if (!status) {
        enum { O_RDONLY_ = 0 };
        const int fd = model->host.open(path, O_RDONLY_);
        if (fd < 0) {
            eb_fail(error, "%s: cannot be opened for reading", path);
            status = EB_IO;
        } else {
            status = map(model, fd, offset, size, error);
            model->host.close(fd);
        }
    }
    if (!status)
        status = check_model(model, error);
    if (status) {
        eb_model_close(model);
        return status;
    }
    *out = model;
    return EB_OK;
}

eb_status eb_model_open_memory(const eb_host *host, const void *data, uint64_t size, eb_model **out, eb_error *error) {
    if (!data || !out)
        FAIL(EB_BAD_ARGUMENT, "eb_model_open_memory: data or out is null");
    *out = NULL;
    if ((uintptr_t)data % 64)
        FAIL(EB_BAD_ARGUMENT, "eb_model_open_memory: data is not aligned to 64 bytes");
    eb_model *model = NULL;
    eb_status status = new_model(host, "model in memory", &model, error);
    if (status)
        return status;
    model->base = data;
    model->size = size;
    status = check_model(model, error);
    if (status) {
        eb_model_close(model);
        return status;
    }
    *out = model;
    return EB_OK;
}

void eb_model_close(eb_model *model) {
    if (!model)
        return;
    const eb_host host = model->host;
    if (model->mapping)
        host.munmap(model->mapping, model->mapping_size);
    if (model->layers)
        host.free(model->layers);
    host.free(model);
}

const eb_model_info *eb_model_get_info(const eb_model *model) { return model ? &model->info : NULL; }

uint64_t eb_model_fingerprint(const eb_model *model) {
    static const char tags[][5] = {"CONF", "TENS", "DATA"};
    uint64_t sums[3][2] = {{0}};
    if (!model)
        return 0;
    for (size_t i = 0; i < 3; i++) {
        const eb_section *section = eb_find_section(model, tags[i]);
        sums[i][0] = section->crc;
        sums[i][1] = section->size;
    }
    return (uint64_t)eb_crc32(0, sums, sizeof sums) << 32 | sums[2][0];
}

eb_status eb_model_section(const eb_model *model, const char tag[4], const void **data, uint64_t *size) {
    if (!model || !tag || !data || !size)
        return EB_BAD_ARGUMENT;
    const eb_section *section = eb_find_section(model, tag);
    *data = section ? model->base + section->offset : NULL;
    *size = section ? section->size : 0;
    return EB_OK;
}
