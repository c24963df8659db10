/* parts.c - how work is split, and who has which scratch memory. */
#include "parts.h"

enum { PARALLEL_BYTES = 16384 }; /* as for the engine's own jobs (job.h) */

size_t eb_parts(size_t units, size_t bytes) {
    const size_t worth = bytes / PARALLEL_BYTES, n = worth < units ? worth : units;
    return n > EB_MOST_PARTS ? EB_MOST_PARTS : n ? n : 1;
}

void *eb_slot_take(eb_slots *slots) {
    uint32_t taken = __atomic_load_n(&slots->taken, __ATOMIC_RELAXED);
    for (;;) {
        const int lowest = __builtin_ctz(~taken);
        if (__atomic_compare_exchange_n(&slots->taken, &taken, taken | 1u << lowest, 0, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return slots->at + (size_t)lowest * slots->size;
    }
}

void eb_slot_give(eb_slots *slots, void *slot) {
    const size_t number = (size_t)((unsigned char *)slot - slots->at) / slots->size;
    __atomic_fetch_and(&slots->taken, ~(1u << number), __ATOMIC_RELEASE);
}
