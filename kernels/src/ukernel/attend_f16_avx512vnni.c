/* attend_f16_avx512vnni.c - attention over a KV cache of 16-bit floats, sixteen at once. */
#define EB_LANES 16
#define EB_ROWS 4
#define EB_GROUPS 4
#define EB_COLUMNS 4
#define EB_KV_F16_BODY
#include "attend.h"

void eb_attend_f16_avx512vnni(const eb_attend *a) { attend(a); }
