/* kv_cache.h - where keys and values lie, and in which type.
 *
 * Positions go in groups of EB_KV_GROUP. One key-value head of one layer of one sequence is a row of groups, a group is
 * keys, then values, then (int8) scales, all of 64-byte multiples. So the first n positions of a head are the first
 * n / 16, rounded up, groups: one piece of memory.
 *   keys    f16, f32: [head_dim][16 positions]; int8: [head_dim / 4, rounded up][16 positions][4], the rest zero.
 *           A vector holds as many positions, and their scores are sums in its lanes: nothing is added up across.
 *   values  [16 positions][stride], stride: head_dim rounded up to 16, the rest zero
 *   scales  of int8: float [16] of the keys, then [16] of the values
 * Positions that nothing was stored at hold anything; no result depends on them. */
#ifndef EB_KV_CACHE_H
#define EB_KV_CACHE_H

#include "edgebit.h"
#include "ukernel.h"

enum { EB_MAX_HEAD_DIM = 1024 }; /* model_file.c sees to it */

typedef struct eb_kv_cache {
    eb_kv_type type;
    eb_kv_layout layout;
    uint64_t head_bytes; /* a head: ctx_len positions, rounded up to whole groups */
    unsigned char *base; /* [n_sequences][n_layers][n_kv_heads] heads */
} eb_kv_cache;

/* Everything but `base`. */
void eb_kv_cache_plan(eb_kv_cache *kv, eb_kv_type type, size_t head_dim, uint32_t ctx_len);

/* Stores the key and the value, [stride] with zeros after head_dim, of `position` of the head at `head`. */
void eb_kv_store(const eb_kv_cache *kv, const eb_ukernels *kernels, unsigned char *head, size_t position,
                 const float *key, const float *value);

/* Clears positions first .. 15 of a group. */
void eb_kv_clear(const eb_kv_cache *kv, unsigned char *group, size_t first);

#endif
