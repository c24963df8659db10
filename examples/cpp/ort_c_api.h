/* What this example calls of ONNX Runtime's C API, for machines without its header.
 *
 * This program is written against the official onnxruntime_c_api.h (in each release archive of ONNX
 * Runtime, and in Debian 13's libonnxruntime-dev), and runtime.hpp takes that where the compiler finds it. Here are
 * the same names with the same types and nothing else, so that the example also builds where only the library is at
 * hand, as in a Python wheel.
 *
 * The API is a table of functions that grows at its end only: unused_4[3] stands for its functions 4, 5 and 6. */
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtEnv;
struct OrtStatus;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtAllocator;
struct OrtMemoryInfo;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtModelMetadata;

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_FATAL = 4 };
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7 };

struct OrtApi {
    const void *unused_0[2];
    const char *(*GetErrorMessage)(const OrtStatus *status);
    OrtStatus *(*CreateEnv)(OrtLoggingLevel level, const char *log_name, OrtEnv **out);
    const void *unused_4[3];
    OrtStatus *(*CreateSession)(const OrtEnv *env, const char *path, const OrtSessionOptions *options,
                                OrtSession **out);
    const void *unused_8[1];
    OrtStatus *(*Run)(OrtSession *session, const OrtRunOptions *options, const char *const *input_names,
                      const OrtValue *const *inputs, std::size_t n_inputs, const char *const *output_names,
                      std::size_t n_outputs, OrtValue **outputs);
    OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **out);
    const void *unused_11[13];
    OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *options, int threads);
    const void *unused_25[5];
    OrtStatus *(*SessionGetInputCount)(const OrtSession *session, std::size_t *out);
    const void *unused_31[2];
    OrtStatus *(*SessionGetInputTypeInfo)(const OrtSession *session, std::size_t index, OrtTypeInfo **out);
    const void *unused_34[2];
    OrtStatus *(*SessionGetInputName)(const OrtSession *session, std::size_t index, OrtAllocator *allocator,
                                      char **out);
    const void *unused_37[12];
    OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *info, void *data, std::size_t bytes,
                                                 const std::int64_t *shape, std::size_t n_dims,
                                                 ONNXTensorElementDataType type, OrtValue **out);
    const void *unused_50[1];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **out);
    const void *unused_52[3];
    OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *type, const OrtTensorTypeAndShapeInfo **out);
    const void *unused_56[5];
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, std::size_t *out);
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, std::int64_t *out, std::size_t n);
    const void *unused_63[2];
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **out);
    const void *unused_66[3];
    OrtStatus *(*CreateCpuMemoryInfo)(OrtAllocatorType allocator, OrtMemType type, OrtMemoryInfo **out);
    const void *unused_70[6];
    OrtStatus *(*AllocatorFree)(OrtAllocator *allocator, void *memory);
    const void *unused_77[1];
    OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **out);
    const void *unused_79[13];
    void (*ReleaseEnv)(OrtEnv *);
    void (*ReleaseStatus)(OrtStatus *);
    void (*ReleaseMemoryInfo)(OrtMemoryInfo *);
    void (*ReleaseSession)(OrtSession *);
    void (*ReleaseValue)(OrtValue *);
    const void *unused_97[1];
    void (*ReleaseTypeInfo)(OrtTypeInfo *);
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *);
    void (*ReleaseSessionOptions)(OrtSessionOptions *);
    const void *unused_101[10];
    OrtStatus *(*SessionGetModelMetadata)(const OrtSession *session, OrtModelMetadata **out);
    const void *unused_112[4];
    OrtStatus *(*ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata *metadata, OrtAllocator *allocator,
                                                       const char *key, char **out);
    const void *unused_117[1];
    void (*ReleaseModelMetadata)(OrtModelMetadata *);
    const void *unused_119[109];
    OrtStatus *(*RegisterCustomOpsLibrary_V2)(OrtSessionOptions *options, const char *path);
};

static_assert(sizeof(OrtApi) == 229 * sizeof(void *));

struct OrtApiBase {
    const OrtApi *(*GetApi)(std::uint32_t version);
    const char *(*GetVersionString)();
};
