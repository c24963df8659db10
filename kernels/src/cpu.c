/* cpu.c - CPU features: from cpuid on x86-64, from the host's HWCAP words on AArch64; never from a CPU's name. */
#include "cpu.h"
#include "mem.h"
#include "status.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Lowest first; each level has the features of those before it. */
static const eb_isa levels[] = {
    {"scalar", 0},
#if defined(__x86_64__)
    {"avx2", EB_CPU_AVX2},
#elif defined(__aarch64__)
    {"neon", EB_CPU_NEON},
    {"dotprod", EB_CPU_NEON | EB_CPU_DOTPROD},
#endif
};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

#if defined(__x86_64__)
#define EB_ISA_NAMES "scalar avx2"
#elif defined(__aarch64__)
#define EB_ISA_NAMES "scalar neon dotprod"
#else
#define EB_ISA_NAMES "scalar"
#endif

const char *eb_isa_names(void) { return EB_ISA_NAMES; }

static uint32_t cpu_features(const eb_host *host) {
    uint32_t features = 0;
#if defined(__x86_64__)
    (void)host;
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) && (c & bit_AVX)) {
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        const int saves_ymm = (low & 6) == 6; /* XMM and YMM state */
        if (saves_ymm && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2))
            features |= EB_CPU_AVX2;
    }
#elif defined(__aarch64__)
    features |= EB_CPU_NEON;
    if (host->hwcap >> 20 & 1) /* HWCAP_ASIMDDP */
        features |= EB_CPU_DOTPROD;
#else
    (void)host;
#endif
    return features;
}

static int same(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

eb_status eb_isa_choose(const eb_host *host, eb_isa *out, eb_error *error) {
    const uint32_t have = cpu_features(host);
    if (!host->isa || !*host->isa) {
        for (int i = 0; i < N_LEVELS; i++)
            if (!(levels[i].features & ~have))
                *out = levels[i];
        return EB_OK;
    }
    for (int i = 0; i < N_LEVELS; i++)
        if (same(host->isa, levels[i].name)) {
            if (levels[i].features & ~have) {
                eb_fail(error, "ISA level %s was asked for, and this CPU does not have it", levels[i].name);
                return EB_UNSUPPORTED;
            }
            *out = levels[i];
            return EB_OK;
        }
    eb_fail(error, "ISA level '%s' is not known; this build has: %s", host->isa, EB_ISA_NAMES);
    return EB_BAD_ARGUMENT;
}

const char *eb_isa_pick(const eb_host *host, eb_error *error) {
    eb_isa isa = {0};
    if (eb_host_check(host, error) || eb_isa_choose(host, &isa, error))
        return NULL;
    return isa.name;
}
