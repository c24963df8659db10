/* status.h - how a failure is told, and how the host's memory is asked for. */
#ifndef EB_STATUS_H
#define EB_STATUS_H

#include "edgebit.h"

/* Writes `format` into error->text, cut to fit; `error` may be NULL. Knows %s, %d, %u, %x, %llu, %c and %%, and no
 * more. A string argument may come from a file: control characters are shown as '?'. */
void eb_fail(eb_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

typedef unsigned long long ull; /* what %llu takes */

/* The same, and leaves the function with `status`. */
#define EB_FAIL(error, status, ...)                                                                                    \
    do {                                                                                                               \
        eb_fail(error, __VA_ARGS__);                                                                                   \
        return status;                                                                                                 \
    } while (0)

/* EB_OK where the table has the size this library was built for and every function in it; else EB_BAD_ARGUMENT. */
eb_status eb_host_check(const eb_host *host, eb_error *error);

/* count * size bytes of the host's memory, not cleared, aligned to 16 bytes or what the host's malloc() gives; NULL
 * where the product overflows or the host has none. count * size may be 0: then one byte. Free with host->free(). */
void *eb_alloc(const eb_host *host, size_t count, size_t size);

#endif
