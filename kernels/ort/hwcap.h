/* hwcap.h - what the kernel says that the CPU can do, asked without a libc. */
#ifndef EB_ORT_HWCAP_H
#define EB_ORT_HWCAP_H

#include <stddef.h>

typedef struct eb_hwcap {
    unsigned long hwcap, hwcap2; /* AT_HWCAP and AT_HWCAP2, as far as the engine asks for their bits (cpu.c) */
} eb_hwcap;

/* Zeros on other CPUs than AArch64 and systems than Linux, and where nothing can be found out: slower, never wrong. */
eb_hwcap eb_hwcap_read(void);

/* From an auxiliary vector: pairs of words up to one that begins with 0. `n` words. */
eb_hwcap eb_hwcap_of_auxv(const unsigned long *words, size_t n);

/* From the text of /proc/cpuinfo on AArch64: only what every core has. */
eb_hwcap eb_hwcap_of_cpuinfo(const char *text, size_t size);

#endif
