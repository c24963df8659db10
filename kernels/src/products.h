/* products.h - products of a chunk's quantised inputs with ternary weights, by parts (job.h) of their rows. */
#ifndef EB_PRODUCTS_H
#define EB_PRODUCTS_H

#include "job.h"

/* out[b][row] (+)= projection of token b's input, for this part's rows of `tensor` and all tokens of the chunk */
void eb_linear(eb_engine *engine, const eb_tensor *tensor, const eb_input *input, float *out, size_t out_stride,
               int add, part me);

/* gate_proj and up_proj, row by row together, and their product into chunk.gated; the inputs of both, in this order */
void eb_gate_up(eb_engine *engine, const eb_tensor *gate, const eb_tensor *up, const eb_input inputs[2], part me);

#endif
