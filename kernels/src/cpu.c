/* cpu.c - CPU features: from cpuid on x86-64, from the host's HWCAP words on AArch64; never from a CPU's name. */
#include "cpu.h"
#include "mem.h"
#include "status.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Slowest first. A level need not have all features of those before it: Zen 4 has AVX-512 VNNI and no AVX-VNNI. */
static const eb_isa levels[] = {
    {"scalar", 0},
#if defined(__x86_64__)
    {"avx2", EB_CPU_AVX2},
    {"avxvnni", EB_CPU_AVX2 | EB_CPU_AVXVNNI},
    {"avx512vnni", EB_CPU_AVX2 | EB_CPU_AVX512VNNI},
#elif defined(__aarch64__)
    {"neon", EB_CPU_NEON},
    {"dotprod", EB_CPU_NEON | EB_CPU_DOTPROD},
    {"i8mm", EB_CPU_NEON | EB_CPU_DOTPROD | EB_CPU_I8MM},
#endif
};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

#if defined(__x86_64__)
#define EB_ISA_NAMES "scalar avx2 avxvnni avx512vnni"
#elif defined(__aarch64__)
#define EB_ISA_NAMES "scalar neon dotprod i8mm"
#else
#define EB_ISA_NAMES "scalar"
#endif

const char *eb_isa_names(void) { return EB_ISA_NAMES; }

#if defined(__x86_64__)
static uint32_t x86_features(void) {
    /* Register state that the operating system saves, as bits of XCR0. */
    enum { YMM_STATE = 0x6, ZMM_STATE = 0xe6 };
    const unsigned avx512_b = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    const unsigned avx512_c = bit_AVX512VBMI | bit_AVX512VNNI;
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX) || !(c & bit_F16C))
        return 0;
    uint32_t state, high;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    if ((state & YMM_STATE) != YMM_STATE || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
        return 0;
    uint32_t features = EB_CPU_AVX2;
    if ((state & ZMM_STATE) == ZMM_STATE && (b & avx512_b) == avx512_b && (c & avx512_c) == avx512_c)
        features |= EB_CPU_AVX512VNNI;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4)) /* AVX-VNNI */
        features |= EB_CPU_AVXVNNI;
    return features;
}
#endif

static uint32_t cpu_features(const eb_host *host) {
#if defined(__x86_64__)
    (void)host;
    return x86_features();
#elif defined(__aarch64__)
    uint32_t features = EB_CPU_NEON;
    if (host->hwcap >> 20 & 1) /* HWCAP_ASIMDDP */
        features |= EB_CPU_DOTPROD;
    if (host->hwcap2 >> 13 & 1) /* HWCAP2_I8MM */
        features |= EB_CPU_I8MM;
    return features;
#else
    (void)host;
    return 0;
#endif
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
