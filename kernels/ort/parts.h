/* parts.h - work in parts that run side by side, on threads of whoever calls, and scratch memory for those that do. */
#ifndef EB_ORT_PARTS_H
#define EB_ORT_PARTS_H

#include <stddef.h>
#include <stdint.h>

typedef void eb_part_fn(void *task, size_t part);

/* Runs part(task, 0 .. n_parts - 1) in any order, on any threads, and comes back when all are done. */
typedef struct eb_parallel {
    void (*run)(const struct eb_parallel *self, eb_part_fn *part, size_t n_parts, void *task);
} eb_parallel;

enum { EB_MOST_PARTS = 32 };

/* Into how many parts `units` go that cost `bytes` of reading together: one where that is little, since others cannot be
 * told of it sooner than it is done, else more than there are threads, which take them as they come. */
size_t eb_parts(size_t units, size_t bytes);

/* Memory that a part has for itself while it runs: as few slots as run at once are ever touched. */
typedef struct eb_slots {
    unsigned char *at; /* [n] slots of `size` bytes */
    size_t size, n;    /* n at least as many as there are parts, at most EB_MOST_PARTS */
    uint32_t taken;    /* a bit for each */
} eb_slots;

void *eb_slot_take(eb_slots *slots);
void eb_slot_give(eb_slots *slots, void *slot);

#endif
