/* edgebit_ort.h - what libedgebit_ort exports: the operators of the domain ai.edgebit for ONNX Runtime 1.17 or later.
 *
 * The library needs no libc and imports no symbol. It keeps nothing of a session that is closed; the runtimes that it has
 * been registered with stay known until the process ends. Any function may be called from any thread. */
#ifndef EDGEBIT_ORT_H
#define EDGEBIT_ORT_H

#include "edgebit.h"

struct OrtSessionOptions;
struct OrtApiBase;
struct OrtStatus;

/* Called by the runtime (SessionOptions.register_custom_ops_library, RegisterCustomOpsLibrary_V2 and their like). A status
 * that is not NULL says what is wrong, such as a runtime that is too old. */
EB_API struct OrtStatus *RegisterCustomOps(struct OrtSessionOptions *options, const struct OrtApiBase *base);

/* How many kernels have been made in this process. A session that was given the library and made none has no node of the
 * operators, or runs their fallback. */
EB_API uint64_t edgebit_ort_kernels(void);

EB_API const char *edgebit_ort_version(void); /* of edgebit: "0.1.0" */

EB_API const char *edgebit_ort_isa(void); /* the ISA level that kernels use on this CPU (eb_isa_pick) */

#endif
