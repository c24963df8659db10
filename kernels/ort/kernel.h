/* kernel.h - what the runtime makes of each node of an operator. */
#ifndef EB_ORT_KERNEL_H
#define EB_ORT_KERNEL_H

#include "matmul.h"
#include "ort_abi.h"

/* An operator for one type of X and Y. Several with one name are one operator to a graph. */
typedef struct eb_operator {
    OrtCustomOp abi; /* first: the runtime's pointers are to it */
    const char *name;
    int is_int8; /* Int8MatMul, else TernaryMatMul */
    eb_ort_type type;
    const OrtApi *api; /* of the runtime that it is registered with, for shape inference */
    const eb_ukernels *kernels;
} eb_operator;

enum { EB_OPERATORS = 6 };

/* All operators, for this runtime. */
void eb_operators_fill(eb_operator operators[EB_OPERATORS], const OrtApi *api, const eb_ukernels *kernels);

/* How many kernels have been made in this process. */
uint64_t eb_kernels_made(void);

#endif
