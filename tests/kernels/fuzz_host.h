/* fuzz_host.h - of the fuzz targets whose objects ask their host for memory only: that host, and how a broken promise ends. */
#ifndef EB_FUZZ_HOST_H
#define EB_FUZZ_HOST_H

#include <stdio.h>
#include <stdlib.h>

#include "edgebit.h"

static int never(void) { return -1; }

static eb_host make_host(void) {
    eb_host host = {.size = sizeof host, .malloc = malloc, .free = free};
    void (**functions)(void) = (void (**)(void))&host.open;
    for (; (char *)functions < (char *)(&host + 1); functions++)
        *functions = (void (*)(void))never;
    return host;
}

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

#endif
