/* attend_f16_scalar.c - the definition: 16-bit floats are widened with integer operations (vec.h). */
#define EB_LANES 4
#define EB_ROWS 2
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_F16_BODY
#include "attend.h"

void eb_attend_f16_scalar(const eb_attend *a) { attend(a); }
