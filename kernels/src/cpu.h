/* cpu.h - what the CPU can do, as far as micro-kernels ask for it, and the ISA levels that mask it. */
#ifndef EB_CPU_H
#define EB_CPU_H

#include "edgebit.h"

enum {
    EB_CPU_AVX2 = 1u << 0,       /* x86-64: AVX2 and F16C, and an operating system that saves the wide registers */
    EB_CPU_NEON = 1u << 1,       /* AArch64: always there */
    EB_CPU_DOTPROD = 1u << 2,    /* AArch64: FEAT_DotProd (Cortex-A55, A76 and later) */
    EB_CPU_AVXVNNI = 1u << 3,    /* x86-64: VPDPBUSD on 256 bits (Alder Lake, Zen 5 and later) */
    EB_CPU_AVX512VNNI = 1u << 4, /* x86-64: AVX-512 F, BW, DQ, VL, VNNI and VBMI (Ice Lake, Zen 4 and later) */
    EB_CPU_I8MM = 1u << 5,       /* AArch64: FEAT_I8MM (Cortex-A510, A710, Neoverse V1 and later) */
};

typedef struct eb_isa {
    const char *name;  /* static */
    uint32_t features; /* EB_CPU_*: what micro-kernels may use */
} eb_isa;

/* The highest ISA level that the CPU has or, with host->isa, that very level. EB_BAD_ARGUMENT where host->isa names
 * none of this build's; EB_UNSUPPORTED where the CPU does not have it. `host` has passed eb_host_check(). */
eb_status eb_isa_choose(const eb_host *host, eb_isa *out, eb_error *error);

#endif
