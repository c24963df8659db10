/* layout_t1.h - what a block of layout t1 is made of, for the micro-kernels that read it (docs/model-format.md).
 *
 * Three weights are a number of five bits, index = code0 + 3 * code1 + 9 * code2. Eight vectors of indices, 16 to a row,
 * lie in five vectors of bytes A to E: the low five bits of these are the indices 0 to 4; the three high bits of A, B
 * and C are the high bits of the indices 5, 6 and 7, whose low two come from D and E:
 *   index 5 = A[7:5] D[7:6]    index 6 = B[7:5] E[7:6]    index 7 = C[7:5] D[5] E[5]
 * Vector of indices j stands for columns 48 j to 48 j + 47 of the block's 384: code0 for the first 16, and so on. What
 * is left of a row's columns after its whole blocks lies in tiles of layout t2. */
#ifndef EB_LAYOUT_T1_H
#define EB_LAYOUT_T1_H

#include <stdint.h>

enum { EB_T1_BLOCK = 384, EB_T1_VECTORS = 5, EB_T1_INDICES = 8 };

/* code0 | code1 << 2 | code2 << 4 of each index; zero for 27 to 31, which are in no sound file. */
static const uint8_t eb_t1_codes[32] = {
    0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x10, 0x11, 0x12, 0x14, 0x15, 0x16, 0x18,
    0x19, 0x1a, 0x20, 0x21, 0x22, 0x24, 0x25, 0x26, 0x28, 0x29, 0x2a, 0,    0,    0,    0,    0,
};

/* The eight indices at one place of a block; `at` is its byte in vector A, 64 bytes before that in B. */
static inline void eb_t1_indices(uint8_t index[EB_T1_INDICES], const uint8_t *at) {
    const uint8_t a = at[0], b = at[64], c = at[128], d = at[192], e = at[256];
    for (int j = 0; j < EB_T1_VECTORS; j++)
        index[j] = at[64 * j] & 31;
    index[5] = (uint8_t)(a >> 5 << 2 | d >> 6);
    index[6] = (uint8_t)(b >> 5 << 2 | e >> 6);
    index[7] = (uint8_t)(c >> 5 << 2 | (d >> 5 & 1) << 1 | (e >> 5 & 1));
}

#endif
