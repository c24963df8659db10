/* float_ops_avx512vnni.c - the float operations, sixteen floats at once. */
#define EB_LANES 16
#define EB_VARIANT(op) eb_##op##_avx512vnni
#include "float_ops.h"
