/* gemm_operands.h - what a block of rows and tokens of a gemm_c8_i8 micro-kernel works on. */
#ifndef EB_GEMM_OPERANDS_H
#define EB_GEMM_OPERANDS_H

#include <stddef.h>
#include <stdint.h>

/* As in ukernel.h, each from the block's first row and token on. */
typedef struct operands {
    int32_t *y;
    const uint8_t *codes;
    const int8_t *x;
    const int32_t *x_sum;
    size_t y_stride, x_stride, k;
} operands;

#endif
