/* model_config.c - section CONF: what to compute. */
#include "model_check.h"

enum { CONF_SIZE = 128 };

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

eb_status eb_check_config(eb_model *model, eb_error *error) {
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
