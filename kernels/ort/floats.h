/* floats.h - float32 and the two 16-bit floats of ONNX, IEEE binary16 and bfloat16: exact one way, to the nearest with
 * halves to even the other way, infinities and what is not a number kept. */
#ifndef EB_ORT_FLOATS_H
#define EB_ORT_FLOATS_H

#include <stddef.h>

typedef enum eb_float_kind { EB_FLOAT32, EB_FLOAT16, EB_BFLOAT16 } eb_float_kind;

size_t eb_float_size(eb_float_kind kind); /* bytes */

/* y [n] = x [n] of that kind */
void eb_floats_load(float *y, const void *x, eb_float_kind kind, size_t n);

/* y [n] of that kind = x [n] */
void eb_floats_store(void *y, eb_float_kind kind, const float *x, size_t n);

#endif
