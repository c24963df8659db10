/* ops.h - float parts that have one form on every CPU; those with variants stand in ukernel.h. */
#ifndef EB_OPS_H
#define EB_OPS_H

#include <stddef.h>
#include <stdint.h>

static inline size_t eb_round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

/* cos and sin [half] of position * inv_freq[i], the product in float as the reference has it */
void eb_rope_angles(float *cosines, float *sines, const float *inv_freq, uint32_t position, size_t half);

#endif
