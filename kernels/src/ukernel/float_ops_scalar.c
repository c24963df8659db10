/* float_ops_scalar.c - the definition: four floats at once, as every x86-64 and AArch64 CPU can. */
#define EB_LANES 4
#define EB_VARIANT(op) eb_##op##_scalar
#include "float_ops.h"
