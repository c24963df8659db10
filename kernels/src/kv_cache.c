/* kv_cache.c - the KV cache's layout, and storing into it. */
#include "kv_cache.h"
#include "mem.h"
#include "ops.h"

void eb_kv_cache_plan(eb_kv_cache *kv, eb_kv_type type, size_t head_dim, uint32_t ctx_len) {
    const size_t element = type == EB_KV_I8 ? 1 : type == EB_KV_F16 ? 2 : 4;
    const size_t key_rows = type == EB_KV_I8 ? eb_round_up(head_dim, 4) : head_dim;
    eb_kv_layout *layout = &kv->layout;
    kv->type = type;
    layout->head_dim = head_dim;
    layout->stride = eb_round_up(head_dim, 16);
    layout->values_at = eb_round_up(key_rows * EB_KV_GROUP * element, 64);
    layout->scales_at = layout->values_at + EB_KV_GROUP * layout->stride * element;
    layout->group_bytes = layout->scales_at + (type == EB_KV_I8 ? 2 * EB_KV_GROUP * sizeof(float) : 0);
    kv->head_bytes = eb_round_up(ctx_len, EB_KV_GROUP) / EB_KV_GROUP * (uint64_t)layout->group_bytes;
}

void eb_kv_store(const eb_kv_cache *kv, const eb_ukernels *kernels, unsigned char *head, size_t position,
                 const float *key, const float *value) {
    const eb_kv_layout *layout = &kv->layout;
    const size_t stride = layout->stride;
    unsigned char *group = head + position / EB_KV_GROUP * layout->group_bytes;
    const size_t at = position % EB_KV_GROUP;
    if (kv->type == EB_KV_F16) {
        uint16_t rounded[EB_MAX_HEAD_DIM], *keys = (uint16_t *)group;
        kernels->round_f16(rounded, key, stride);
        for (size_t d = 0; d < layout->head_dim; d++)
            keys[d * EB_KV_GROUP + at] = rounded[d];
        kernels->round_f16((uint16_t *)(group + layout->values_at) + at * stride, value, stride);
    } else if (kv->type == EB_KV_I8) {
        int8_t q[EB_MAX_HEAD_DIM];
        float *scales = (float *)(group + layout->scales_at);
        kernels->quantise_kv(q, &scales[at], key, stride);
        for (size_t d = 0; d < layout->head_dim; d += 4)
            eb_memcpy(group + (d / 4 * EB_KV_GROUP + at) * 4, q + d, 4);
        kernels->quantise_kv((int8_t *)(group + layout->values_at) + at * stride, &scales[EB_KV_GROUP + at], value,
                             stride);
    } else {
        float *keys = (float *)group;
        for (size_t d = 0; d < layout->head_dim; d++)
            keys[d * EB_KV_GROUP + at] = key[d];
        eb_memcpy((float *)(group + layout->values_at) + at * stride, value, stride * sizeof *value);
    }
}

void eb_kv_clear(const eb_kv_cache *kv, unsigned char *group, size_t first) {
    const eb_kv_layout *layout = &kv->layout;
    const size_t n = EB_KV_GROUP - first, unit = kv->type == EB_KV_F16 ? 2 : 4; /* of a position, side by side */
    for (unsigned char *row = group; row < group + layout->values_at; row += EB_KV_GROUP * unit)
        eb_memset(row + first * unit, 0, n * unit);
    const size_t row_bytes = (layout->scales_at - layout->values_at) / EB_KV_GROUP;
    eb_memset(group + layout->values_at + first * row_bytes, 0, n * row_bytes);
    for (unsigned char *row = group + layout->scales_at; row < group + layout->group_bytes; row += EB_KV_GROUP * 4)
        eb_memset(row + first * 4, 0, n * 4);
}
