/* matmul.h - the two products of the operators, without ONNX Runtime: any caller that has memory and threads.
 *
 * Results are bit for bit those of the engine's projections and head, at any number of parts and whatever else is in the
 * batch: the same micro-kernels quantise, sum and scale (ukernel.h). */
#ifndef EB_ORT_MATMUL_H
#define EB_ORT_MATMUL_H

#include "floats.h"
#include "parts.h"
#include "ukernel.h"

/* Inputs may lie at any byte: a model file's external data need not be aligned. y is as aligned as its kind needs. */
typedef struct eb_matmul {
    const eb_ukernels *kernels;
    const eb_parallel *parallel;
    const void *x;      /* [tokens][columns] */
    void *y;            /* [tokens][rows] */
    eb_float_kind kind; /* of x and y */
    size_t tokens, rows, columns;
} eb_matmul;

/* Ternary weights in layout n2 (docs/onnx.md, "The operators"): codes are weight + 2. */
typedef struct eb_n2 {
    const uint8_t *codes; /* [groups][tiles of 4 rows][chunks of 64 columns][4][16] */
    const void *scales;   /* float32 [1], or by_row: [groups][rows] */
    size_t groups;        /* of columns / groups columns */
    int by_row, is_i15;   /* is_i15: activations take 15 bits, else 8 */
} eb_n2;

/* Int8 weights in plain rows: codes are weight + 128, filled up with 128 to a multiple of 16. */
typedef struct eb_u8_rows {
    const uint8_t *codes; /* [rows][stride] */
    const void *scales;   /* float32 [rows] */
    size_t stride;
} eb_u8_rows;

/* Limits of the micro-kernels: columns of a group, and of the int8 weights. */
enum { EB_MOST_GROUP_COLUMNS = 262144, EB_MOST_U8_COLUMNS = 65536 };

/* y = dot * (the token's scale * the weights' scale), groups added in their order. tokens, rows and columns at least 1;
 * `scratch` has eb_ternary_scratch() bytes at any alignment. */
size_t eb_ternary_scratch(const eb_matmul *m, const eb_n2 *w);
void eb_ternary_matmul(const eb_matmul *m, const eb_n2 *w, void *scratch);

/* y = dot * (the weights' scale * the token's scale), activations in 15 bits, dots in int64. */
size_t eb_int8_scratch(const eb_matmul *m);
void eb_int8_matmul(const eb_matmul *m, const eb_u8_rows *w, void *scratch);

#endif
