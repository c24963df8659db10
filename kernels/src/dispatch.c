/* dispatch.c - the table of micro-kernels, from ukernels.inc. */
#include "dispatch.h"
#include "cpu.h"

eb_ukernels eb_dispatch(uint32_t features) {
    eb_ukernels out = {0};
#define EB_UKERNEL(op, name, needs)                                                                                    \
    if (!out.op && !((uint32_t)(needs) & ~features))                                                                   \
        out.op = name;
#include "ukernels.inc"
#undef EB_UKERNEL
    return out;
}
