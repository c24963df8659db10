/* attend_i8_scalar.c - the definition: attention over a KV cache of int8, in plain integers. */
#define EB_LANES 4
#define EB_ROWS 2
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_I8_BODY
#include "attend.h"

EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    for (int r = 0; r < rows; r++, dots += EB_SEGMENT) {
        const int16_t *x = (const int16_t *)(q->q + (row + (size_t)r) * q->pitch);
        int32_t sum[EB_KV_GROUP] = {0};
        for (size_t d = 0; d < q->n; d += 4)
            for (int p = 0; p < EB_KV_GROUP; p++) {
                const int8_t *key = keys + (d / 4 * EB_KV_GROUP + (size_t)p) * 4;
                sum[p] += key[0] * x[d] + key[1] * x[d + 1] + key[2] * x[d + 2] + key[3] * x[d + 3];
            }
        eb_memcpy(dots, sum, sizeof sum);
    }
}

void eb_attend_i8_scalar(const eb_attend *a) { attend(a); }
