/* fault.h - how edgebit-run ends with a fault: a line on standard error, and an exit code of its own. */
#ifndef EB_FAULT_H
#define EB_FAULT_H

#include "edgebit.h"

enum {
    EXIT_OK = 0,
    EXIT_FAULT = 1,
    EXIT_USAGE = 2,
    EXIT_MODEL = 3,
    EXIT_ENGINE = 9,
    EXIT_PROBE = 14,
    EXIT_INTERRUPT = 130
};

__attribute__((format(printf, 2, 3), noreturn)) void die(int code, const char *format, ...);

/* Memory, or the end. */
void *allocate(size_t size);

int exit_code(eb_status status);

#endif
