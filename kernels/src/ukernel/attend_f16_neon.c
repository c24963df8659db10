/* attend_f16_neon.c - attention over a KV cache of 16-bit floats: FCVTL widens four at once. */
#define EB_LANES 4
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_F16_BODY
#include "attend.h"

void eb_attend_f16_neon(const eb_attend *a) { attend(a); }
