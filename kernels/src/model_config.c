/* model_config.c - section CONF: what to compute. */
#include "model_check.h"

enum { CONF_SIZE = 128, RESERVED_AT = 104 };

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

static eb_status read_sizes(eb_model *model, const unsigned char *conf, eb_error *error) {
    eb_model_info *info = &model->info;
    const struct {
        const char *name;
        uint32_t *place;
        uint32_t high;
    } sizes[] = {{"hidden_size", &info->hidden_size, 65536}, {"ffn_size", &info->ffn_size, 262144},
                 {"n_layers", &info->n_layers, 1024},        {"n_heads", &info->n_heads, 1024},
                 {"n_kv_heads", &info->n_kv_heads, 1024},    {"head_dim", &info->head_dim, 1024},
                 {"vocab_size", &info->vocab_size, 2097152}, {"context_max", &info->context_max, 16777216}};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *sizes[i].place = eb_load_u32(conf + 4 * i);
        const eb_status status = check_range(model, sizes[i].name, *sizes[i].place, 1, sizes[i].high, error);
        if (status)
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
    return EB_OK;
}

static eb_status read_kinds(eb_model *model, const unsigned char *conf, eb_error *error) {
    const uint32_t activation = eb_load_u32(conf + 36), norms = eb_load_u32(conf + 40);
    const uint32_t quantisation = eb_load_u32(conf + 44), rope_style = eb_load_u32(conf + 48);
    if (activation != EB_RELU2 && activation != EB_SILU)
        FAIL(EB_UNSUPPORTED, "%s: CONF: activation %u is not known to this library", model->name, activation);
    if (norms & ~(uint32_t)(EB_ATTN_SUB_NORM | EB_FFN_SUB_NORM | EB_QK_NORM | EB_PROJECTION_NORM))
        FAIL(EB_UNSUPPORTED, "%s: CONF: norms 0x%x are not known to this library", model->name, norms);
    if (quantisation != EB_INT8 && quantisation != EB_INT15)
        FAIL(EB_UNSUPPORTED, "%s: CONF: activation quantisation %u is not known to this library", model->name,
             quantisation);
    if (rope_style != 1)
        FAIL(EB_UNSUPPORTED, "%s: CONF: RoPE style %u is not known to this library", model->name, rope_style);
    model->config.activation = (eb_activation)activation;
    model->config.norms = norms;
    model->config.quantisation = (eb_quantisation)quantisation;
    return check_range(model, "head_tied", eb_load_u32(conf + 52), 0, 1, error);
}

static int is_positive(float x) { return x > 0 && x <= 3.4028234e38f; }

static eb_status read_numbers(eb_model *model, const unsigned char *conf, eb_error *error) {
    eb_config *config = &model->config;
    config->rms_norm_eps = eb_load_f32(conf + 32);
    config->projection_norm_eps = eb_load_f32(conf + 96);
    config->rope_factor = eb_load_f32(conf + 100);
    if (!is_positive(config->rms_norm_eps))
        FAIL(EB_BAD_FORMAT, "%s: CONF: rms_norm_eps is not a positive number", model->name);
    if (config->norms & EB_PROJECTION_NORM) {
        if (!is_positive(config->projection_norm_eps))
            FAIL(EB_BAD_FORMAT, "%s: CONF: projection_norm_eps is not a positive number", model->name);
    } else if (config->projection_norm_eps != 0) /* which is so of what is not a number, too */
        FAIL(EB_BAD_FORMAT, "%s: CONF: projection_norm_eps is not 0, and the model has no such norms", model->name);
    if (!(config->rope_factor >= 0 && config->rope_factor <= 16))
        FAIL(EB_BAD_FORMAT, "%s: CONF: rope_attention_factor is not between 0 and 16", model->name);
    if (config->rope_factor == 0)
        config->rope_factor = 1;
    return EB_OK;
}

static eb_status read_tokens(eb_model *model, const unsigned char *conf, eb_error *error) {
    eb_model_info *info = &model->info;
    info->bos_token = eb_load_i32(conf + 56);
    info->n_stop_tokens = eb_load_u32(conf + 60);
    eb_status status;
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
    return EB_OK;
}

eb_status eb_check_config(eb_model *model, eb_error *error) {
    const eb_section *section = eb_find_section(model, "CONF");
    if (section->size != CONF_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: section CONF has %llu bytes; it must have %d", model->name, (ull)section->size,
             CONF_SIZE);
    const unsigned char *conf = model->base + section->offset;
    eb_status status;
    if ((status = read_sizes(model, conf, error)) || (status = read_kinds(model, conf, error)) ||
        (status = read_numbers(model, conf, error)) || (status = read_tokens(model, conf, error)))
        return status;
    if (!all_zero(conf + RESERVED_AT, CONF_SIZE - RESERVED_AT))
        FAIL(EB_BAD_FORMAT, "%s: CONF: reserved bytes are not zero", model->name);
    return EB_OK;
}
