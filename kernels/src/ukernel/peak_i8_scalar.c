/* peak_i8_scalar.c - the definition. The empty assembly says that the operands may have changed, so that no round can
 * be left out as a repetition of the one before. */
#include "ukernel.h"

uint32_t eb_peak_i8_scalar(const uint8_t a[64], const int8_t b[64], size_t n) {
    uint32_t sum = 0;
    for (size_t round = 0; round < n; round++)
        for (int turn = 0; turn < EB_PEAK_MACS / 64; turn++) {
            __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
            int32_t dot = 0;
            for (int i = 0; i < 64; i++)
                dot += a[i] * b[i];
            sum += (uint32_t)dot;
        }
    return sum;
}
