/* attend_i8_avx512vnni.c - attention over a KV cache of int8 with AVX-512 VNNI.
 * A register holds 16 positions by 4 elements. VPDPBUSD takes one unsigned operand: the keys, 128 added by turning over
 * their highest bit, which 128 times the sum of the query takes off again. */
#define EB_LANES 16
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_I8_BODY
#include "attend.h"

EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    __m512i hi[EB_ROWS], lo[EB_ROWS];
    for (int r = 0; r < rows; r++)
        hi[r] = lo[r] = _mm512_setzero_si512();
    const unsigned char *x_hi = q->hi + row * q->pitch, *x_lo = q->lo + row * q->pitch;
    for (size_t d = 0; d < q->n; d += 4, keys += 64) {
        const __m512i key = _mm512_xor_si512(_mm512_loadu_si512(keys), _mm512_set1_epi8(-128));
        for (int r = 0; r < rows; r++) {
            const size_t at = (size_t)r * q->pitch + d;
            hi[r] = _mm512_dpbusd_epi32(hi[r], key, _mm512_set1_epi32(eb_load_i32(x_hi + at)));
            lo[r] = _mm512_dpbusd_epi32(lo[r], key, _mm512_set1_epi32(eb_load_i32(x_lo + at)));
        }
    }
    for (int r = 0; r < rows; r++) {
        const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(hi[r], 7), lo[r]);
        const __m512i taken_off = _mm512_set1_epi32(128 * q->sum[row + (size_t)r]);
        _mm512_storeu_si512(dots + r * EB_SEGMENT, _mm512_sub_epi32(sum, taken_off));
    }
}

void eb_attend_i8_avx512vnni(const eb_attend *a) { attend(a); }
