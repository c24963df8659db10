/* attend_f32_scalar.c - float keys and values, for comparisons: no other variant is needed. */
#define EB_LANES 4
#define EB_ROWS 2
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_F32_BODY
#include "attend.h"

void eb_attend_f32_scalar(const eb_attend *a) { attend(a); }
