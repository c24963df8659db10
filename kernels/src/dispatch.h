/* dispatch.h - picks one variant of each micro-kernel. */
#ifndef EB_DISPATCH_H
#define EB_DISPATCH_H

#include "ukernel.h"

/* The first row of ukernels.inc, for each op, that needs no more than `features` (EB_CPU_*). */
eb_ukernels eb_dispatch(uint32_t features);

#endif
