/* float_ops_avx2.c - the float operations, eight floats at once. */
#define EB_LANES 8
#define EB_VARIANT(op) eb_##op##_avx2
#include "float_ops.h"
