/* float_mode.h - the CPU's float settings: round to nearest even, denormals kept.
 *
 * A program that the library is loaded into may have set others (PyTorch flushes denormals when told to), and results
 * would differ. The library's own threads take over the settings of the thread that started them, so they enter too. */
#ifndef EB_FLOAT_MODE_H
#define EB_FLOAT_MODE_H

#include <stdint.h>

typedef uint64_t eb_float_mode;

/* Sets the mode that all results are defined in; gives back the one before, for eb_float_mode_leave(). */
static inline eb_float_mode eb_float_mode_enter(void) {
    eb_float_mode before = 0;
#if defined(__x86_64__)
    uint32_t control;
    __asm__ volatile("stmxcsr %0" : "=m"(control));
    before = control;
    control = 0x1f80; /* all exceptions masked, round to nearest, no flush to zero */
    __asm__ volatile("ldmxcsr %0" : : "m"(control) : "memory");
#elif defined(__aarch64__)
    const uint64_t control = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(control) : "memory");
#endif
    return before;
}

static inline void eb_float_mode_leave(eb_float_mode before) {
#if defined(__x86_64__)
    const uint32_t control = (uint32_t)before;
    __asm__ volatile("ldmxcsr %0" : : "m"(control) : "memory");
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(before) : "memory");
#else
    (void)before;
#endif
}

#endif
