/* ort_abi.h - ONNX Runtime's C interface, as far as an operator library needs it, declared anew.
 *
 * The runtime hands over an OrtApiBase; its GetApi(version) gives a table of function pointers that is only ever added to
 * at its end, or NULL where the runtime is older than `version`. So a function is known by its place in the table, and a
 * library built from this file loads into every release from 1.17 on, whichever headers that one ships.
 * tests/kernels/test_ort_abi.py compares the places with a real onnxruntime_c_api.h where one is at hand. */
#ifndef EB_ORT_ABI_H
#define EB_ORT_ABI_H

#include <stddef.h>
#include <stdint.h>

/* ONNX Runtime 1.17: the first with ParallelFor and shape inference for an operator library. */
enum { EB_ORT_API = 17 };

typedef enum eb_ort_code { EB_ORT_FAIL = 1, EB_ORT_INVALID_ARGUMENT = 2, EB_ORT_NOT_IMPLEMENTED = 9 } eb_ort_code;

typedef enum eb_ort_type { EB_ORT_FLOAT = 1, EB_ORT_UINT8 = 2, EB_ORT_FLOAT16 = 10, EB_ORT_BFLOAT16 = 16 } eb_ort_type;

enum { EB_ORT_REQUIRED = 0, EB_ORT_OPTIONAL = 1 }; /* OrtCustomOpInputOutputCharacteristic */
enum { EB_ORT_ATTRIBUTE_INT = 1 };                 /* OrtOpAttrType */

/* Objects of the runtime, known by their addresses alone. */
typedef struct OrtStatus OrtStatus; /* NULL is success; else to be given back to the runtime, or released */
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtAllocator OrtAllocator;

typedef struct OrtApi {
    void (*slot[1])(void);
} OrtApi;

typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

/* A function of the table: its name in the runtime's header, its place, what it returns, what it takes. */
#define EB_ORT_FUNCTIONS(F)                                                                                            \
    F(CreateStatus, 0, OrtStatus *, (eb_ort_code, const char *))                                                       \
    F(CreateCustomOpDomain, 26, OrtStatus *, (const char *, OrtCustomOpDomain **))                                     \
    F(CustomOpDomain_Add, 27, OrtStatus *, (OrtCustomOpDomain *, const struct OrtCustomOp *))                          \
    F(AddCustomOpDomain, 28, OrtStatus *, (OrtSessionOptions *, OrtCustomOpDomain *))                                  \
    F(GetTensorMutableData, 51, OrtStatus *, (OrtValue *, void **))                                                    \
    F(SetDimensions, 59, OrtStatus *, (OrtTensorTypeAndShapeInfo *, const int64_t *, size_t))                          \
    F(GetDimensionsCount, 61, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, size_t *))                              \
    F(GetDimensions, 62, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, int64_t *, size_t))                          \
    F(GetSymbolicDimensions, 63, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, const char **, size_t))              \
    F(GetTensorTypeAndShape, 65, OrtStatus *, (const OrtValue *, OrtTensorTypeAndShapeInfo **))                        \
    F(AllocatorAlloc, 75, OrtStatus *, (OrtAllocator *, size_t, void **))                                              \
    F(AllocatorFree, 76, OrtStatus *, (OrtAllocator *, void *))                                                        \
    F(GetAllocatorWithDefaultOptions, 78, OrtStatus *, (OrtAllocator **))                                              \
    F(KernelInfoGetAttribute_int64, 86, OrtStatus *, (const OrtKernelInfo *, const char *, int64_t *))                 \
    F(KernelContext_GetInput, 90, OrtStatus *, (const OrtKernelContext *, size_t, const OrtValue **))                  \
    F(KernelContext_GetOutput, 91, OrtStatus *, (OrtKernelContext *, size_t, const int64_t *, size_t, OrtValue **))    \
    F(ReleaseStatus, 93, void, (OrtStatus *))                                                                          \
    F(ReleaseTensorTypeAndShapeInfo, 99, void, (OrtTensorTypeAndShapeInfo *))                                          \
    F(KernelInfo_GetNodeName, 244, OrtStatus *, (const OrtKernelInfo *, char *, size_t *))                             \
    F(KernelInfoGetConstantInput_tensor, 249, OrtStatus *, (const OrtKernelInfo *, size_t, int *, const OrtValue **))  \
    F(ShapeInferContext_GetInputTypeShape, 268, OrtStatus *,                                                           \
      (const OrtShapeInferContext *, size_t, OrtTensorTypeAndShapeInfo **))                                            \
    F(ShapeInferContext_GetAttribute, 269, OrtStatus *,                                                                \
      (const OrtShapeInferContext *, const char *, const OrtOpAttr **))                                                \
    F(ShapeInferContext_SetOutputTypeShape, 270, OrtStatus *,                                                          \
      (const OrtShapeInferContext *, size_t, const OrtTensorTypeAndShapeInfo *))                                       \
    F(ReadOpAttr, 272, OrtStatus *, (const OrtOpAttr *, int, void *, size_t, size_t *))                                \
    F(KernelContext_ParallelFor, 274, OrtStatus *,                                                                     \
      (const OrtKernelContext *, void (*)(void *, size_t), size_t, size_t, void *))

struct OrtCustomOp;

/* eb_ort_CreateStatus(api) and its like: the function at its place. */
#define EB_ORT_FUNCTION(name, place, result, takes)                                                                    \
    typedef result eb_ort_##name##_fn takes;                                                                           \
    enum { EB_ORT_SLOT_##name = place };                                                                               \
    static inline __attribute__((unused)) eb_ort_##name##_fn *eb_ort_##name(const OrtApi *api) {                       \
        return (eb_ort_##name##_fn *)api->slot[place];                                                                 \
    }
EB_ORT_FUNCTIONS(EB_ORT_FUNCTION)
#undef EB_ORT_FUNCTION

/* Calls a function of the table: EB_ORT(api, ReleaseStatus)(status). */
#define EB_ORT(api, name) eb_ort_##name(api)

/* An operator. The runtime reads a member only where `version` is one that has it. */
typedef struct OrtCustomOp {
    uint32_t version; /* of the API whose table the callbacks take */
    void *(*CreateKernel)(const struct OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
    const char *(*GetName)(const struct OrtCustomOp *);
    const char *(*GetExecutionProviderType)(const struct OrtCustomOp *); /* NULL: the CPU's */
    eb_ort_type (*GetInputType)(const struct OrtCustomOp *, size_t);
    size_t (*GetInputTypeCount)(const struct OrtCustomOp *);
    eb_ort_type (*GetOutputType)(const struct OrtCustomOp *, size_t);
    size_t (*GetOutputTypeCount)(const struct OrtCustomOp *);
    void (*KernelCompute)(void *, OrtKernelContext *);
    void (*KernelDestroy)(void *);
    int (*GetInputCharacteristic)(const struct OrtCustomOp *, size_t);
    int (*GetOutputCharacteristic)(const struct OrtCustomOp *, size_t);
    int (*GetInputMemoryType)(const struct OrtCustomOp *, size_t);
    int (*GetVariadicInputMinArity)(const struct OrtCustomOp *);
    int (*GetVariadicInputHomogeneity)(const struct OrtCustomOp *);
    int (*GetVariadicOutputMinArity)(const struct OrtCustomOp *);
    int (*GetVariadicOutputHomogeneity)(const struct OrtCustomOp *);
    OrtStatus *(*CreateKernelV2)(const struct OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **); /* 1.16 */
    OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
    OrtStatus *(*InferOutputShapeFn)(const struct OrtCustomOp *, OrtShapeInferContext *); /* 1.17 */
    int (*GetStartVersion)(const struct OrtCustomOp *);
    int (*GetEndVersion)(const struct OrtCustomOp *);
    size_t (*GetMayInplace)(int **, int **); /* 1.18, as all below; NULL */
    void (*ReleaseMayInplace)(int *, int *);
    size_t (*GetAliasMap)(int **, int **);
    void (*ReleaseAliasMap)(int *, int *);
} OrtCustomOp;

#endif
