/* attend_f16_avx2.c - attention over a KV cache of 16-bit floats, with AVX2 and F16C. */
#define EB_LANES 8
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 2
#define EB_KV_F16_BODY
#include "attend.h"

void eb_attend_f16_avx2(const eb_attend *a) { attend(a); }
