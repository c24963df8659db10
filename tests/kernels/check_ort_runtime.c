/* check_ort_runtime.c - the operators with a runtime made up here, which counts what it hands out and can refuse any call.
 *
 * Whatever fails, nothing may be left behind: no allocation, no description of a tensor, no status. A runtime that is too
 * old is told so, one that registers often or from several threads gets one domain, and each runtime of a process its own. */
#include "edgebit_ort.h"
#include "ort_abi.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 50, COLUMNS = 700, TOKENS = 12, N_SLOTS = 300, MOST_DOMAINS = 40 };

struct OrtStatus {
    eb_ort_code code;
    char text[256];
};
struct OrtValue {
    size_t rank;
    int64_t dim[5];
    void *data;
};
struct OrtTensorTypeAndShapeInfo {
    size_t rank;
    int64_t dim[5];
    const char *name[5];
};
struct OrtKernelInfo {
    int64_t bits;
    const OrtValue *input[3];
};
struct OrtKernelContext {
    const OrtValue *input[3];
    OrtValue output;
};
struct OrtShapeInferContext {
    OrtTensorTypeAndShapeInfo input, output;
};
struct OrtCustomOpDomain {
    const OrtCustomOp *op[8];
    int n_ops, n_uses;
};
struct OrtAllocator {
    char unused;
};
struct OrtOpAttr {
    int64_t value;
};
struct OrtSessionOptions {
    OrtCustomOpDomain *domain;
};

static int live;             /* things handed out and not given back */
static int n_calls, fail_at; /* the call of this number is refused; 0: none */
static OrtCustomOpDomain domains[MOST_DOMAINS];
static int n_domains;

/* ---- the runtime ---- */

static OrtStatus *create_status(eb_ort_code code, const char *text) {
    OrtStatus *made = calloc(1, sizeof *made);
    made->code = code;
    snprintf(made->text, sizeof made->text, "%s", text);
    live++;
    return made;
}

static void release_status(OrtStatus *status) {
    live--;
    free(status);
}

#define REFUSE_HERE                                                                                                    \
    if (++n_calls == fail_at)                                                                                          \
    return create_status(EB_ORT_FAIL, "refused")

static OrtStatus *create_domain(const char *name, OrtCustomOpDomain **out) {
    REFUSE_HERE;
    if (strcmp(name, "ai.edgebit") != 0)
        abort();
    *out = &domains[__atomic_fetch_add(&n_domains, 1, __ATOMIC_RELAXED)];
    return NULL;
}

static OrtStatus *domain_add(OrtCustomOpDomain *domain, const OrtCustomOp *op) {
    domain->op[domain->n_ops++] = op;
    return NULL;
}

static OrtStatus *add_domain(OrtSessionOptions *options, OrtCustomOpDomain *domain) {
    options->domain = domain;
    __atomic_fetch_add(&domain->n_uses, 1, __ATOMIC_RELAXED);
    return NULL;
}

static OrtStatus *mutable_data(OrtValue *value, void **out) {
    REFUSE_HERE;
    *out = value->data;
    return NULL;
}

static OrtStatus *set_dimensions(OrtTensorTypeAndShapeInfo *info, const int64_t *dim, size_t rank) {
    REFUSE_HERE;
    memcpy(info->dim, dim, rank * sizeof *dim);
    return NULL;
}

static OrtStatus *dimensions_count(const OrtTensorTypeAndShapeInfo *info, size_t *out) {
    REFUSE_HERE;
    *out = info->rank;
    return NULL;
}

static OrtStatus *dimensions(const OrtTensorTypeAndShapeInfo *info, int64_t *dim, size_t rank) {
    REFUSE_HERE;
    memcpy(dim, info->dim, rank * sizeof *dim);
    return NULL;
}

static OrtStatus *symbolic_dimensions(const OrtTensorTypeAndShapeInfo *info, const char **name, size_t rank) {
    REFUSE_HERE;
    memcpy(name, info->name, rank * sizeof *name);
    return NULL;
}

static OrtStatus *type_and_shape(const OrtValue *value, OrtTensorTypeAndShapeInfo **out) {
    REFUSE_HERE;
    *out = calloc(1, sizeof **out);
    (*out)->rank = value->rank;
    memcpy((*out)->dim, value->dim, sizeof value->dim);
    live++;
    return NULL;
}

static void release_type_and_shape(OrtTensorTypeAndShapeInfo *info) {
    live--;
    free(info);
}

static OrtStatus *allocate(OrtAllocator *allocator, size_t size, void **out) {
    (void)allocator;
    REFUSE_HERE;
    *out = malloc(size);
    live++;
    return NULL;
}

static OrtStatus *give_back(OrtAllocator *allocator, void *room) {
    (void)allocator;
    live--;
    free(room);
    return NULL;
}

static OrtStatus *default_allocator(OrtAllocator **out) {
    static OrtAllocator only;
    REFUSE_HERE;
    *out = &only;
    return NULL;
}

static OrtStatus *attribute(const OrtKernelInfo *info, const char *name, int64_t *out) {
    *out = !strcmp(name, "K") ? COLUMNS : !strcmp(name, "N") ? ROWS : info->bits;
    REFUSE_HERE;
    return *out ? NULL : create_status(EB_ORT_FAIL, "no such attribute");
}

static OrtStatus *constant_input(const OrtKernelInfo *info, size_t index, int *is_constant, const OrtValue **out) {
    REFUSE_HERE;
    *out = info->input[index];
    *is_constant = *out != NULL;
    return NULL;
}

static OrtStatus *node_name(const OrtKernelInfo *info, char *out, size_t *size) {
    (void)info;
    REFUSE_HERE;
    *size = (size_t)snprintf(out, *size, "q_proj");
    return NULL;
}

static OrtStatus *input(const OrtKernelContext *context, size_t index, const OrtValue **out) {
    REFUSE_HERE;
    *out = context->input[index];
    return NULL;
}

static OrtStatus *output(OrtKernelContext *context, size_t index, const int64_t *dim, size_t rank, OrtValue **out) {
    REFUSE_HERE;
    if (index || rank != 2 || dim[0] != TOKENS || dim[1] != ROWS)
        abort();
    *out = &context->output;
    return NULL;
}

static OrtStatus *parallel_for(const OrtKernelContext *context, void (*part)(void *, size_t), size_t n, size_t batches,
                               void *task) {
    (void)context, (void)batches;
    REFUSE_HERE;
    for (size_t i = 0; i < n; i++)
        part(task, i);
    return NULL;
}

static OrtStatus *infer_input(const OrtShapeInferContext *context, size_t index, OrtTensorTypeAndShapeInfo **out) {
    (void)index;
    REFUSE_HERE;
    *out = (OrtTensorTypeAndShapeInfo *)&context->input;
    return NULL;
}

static OrtStatus *infer_attribute(const OrtShapeInferContext *context, const char *name, const OrtOpAttr **out) {
    static const OrtOpAttr rows = {ROWS};
    (void)context, (void)name;
    REFUSE_HERE;
    *out = &rows;
    return NULL;
}

static OrtStatus *read_attribute(const OrtOpAttr *of, int type, void *out, size_t size, size_t *needed) {
    REFUSE_HERE;
    if (type != EB_ORT_ATTRIBUTE_INT || size != sizeof of->value)
        abort();
    memcpy(out, &of->value, size);
    *needed = size;
    return NULL;
}

static OrtStatus *infer_output(const OrtShapeInferContext *context, size_t index,
                               const OrtTensorTypeAndShapeInfo *info) {
    (void)index;
    REFUSE_HERE;
    ((OrtShapeInferContext *)context)->output = *info;
    return NULL;
}

typedef void (*slot)(void);
static slot table[MOST_DOMAINS][N_SLOTS]; /* of as many runtimes */

static void fill_tables(void) {
    const struct {
        int place;
        slot function;
    } all[] = {
#define AT(name, function) {EB_ORT_SLOT_##name, (slot)function}
        AT(CreateStatus, create_status),
        AT(CreateCustomOpDomain, create_domain),
        AT(CustomOpDomain_Add, domain_add),
        AT(AddCustomOpDomain, add_domain),
        AT(GetTensorMutableData, mutable_data),
        AT(SetDimensions, set_dimensions),
        AT(GetDimensionsCount, dimensions_count),
        AT(GetDimensions, dimensions),
        AT(GetSymbolicDimensions, symbolic_dimensions),
        AT(GetTensorTypeAndShape, type_and_shape),
        AT(AllocatorAlloc, allocate),
        AT(AllocatorFree, give_back),
        AT(GetAllocatorWithDefaultOptions, default_allocator),
        AT(KernelInfoGetAttribute_int64, attribute),
        AT(KernelContext_GetInput, input),
        AT(KernelContext_GetOutput, output),
        AT(ReleaseStatus, release_status),
        AT(ReleaseTensorTypeAndShapeInfo, release_type_and_shape),
        AT(KernelInfo_GetNodeName, node_name),
        AT(KernelInfoGetConstantInput_tensor, constant_input),
        AT(ShapeInferContext_GetInputTypeShape, infer_input),
        AT(ShapeInferContext_GetAttribute, infer_attribute),
        AT(ShapeInferContext_SetOutputTypeShape, infer_output),
        AT(ReadOpAttr, read_attribute),
        AT(KernelContext_ParallelFor, parallel_for),
#undef AT
    };
    for (int runtime = 0; runtime < MOST_DOMAINS; runtime++)
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            table[runtime][all[i].place] = all[i].function;
}

static int api_number; /* which table GetApi() gives */
static const OrtApi *get_api(uint32_t version) { return version == 17 ? (const OrtApi *)table[api_number] : NULL; }
static const OrtApi *get_old_api(uint32_t version) { return version == 1 ? (const OrtApi *)table[0] : NULL; }
static const char *version_string(void) { return "1.16.3"; }
static const OrtApiBase base = {get_api, version_string}, old = {get_old_api, version_string};

/* ---- what is checked ---- */

#define CHECK(is)                                                                                                      \
    if (!(is))                                                                                                         \
    return printf("%s:%d: not so: %s (call %d refused)\n", __FILE__, __LINE__, #is, fail_at), 1

static int check_old_runtime(void) {
    OrtSessionOptions options = {NULL};
    OrtStatus *status = RegisterCustomOps(&options, &old);
    CHECK(status && status->code == EB_ORT_NOT_IMPLEMENTED && !options.domain);
    char wanted[256];
    snprintf(
        wanted, sizeof wanted,
        "libedgebit_ort %s needs ONNX Runtime 1.17 or later, and this is 1.16.3: pip install --upgrade onnxruntime",
        edgebit_ort_version());
    CHECK(!strcmp(status->text, wanted));
    release_status(status);
    return 0;
}

/* A domain that could not be made is made the next time. */
static int check_refused_registration(void) {
    OrtSessionOptions options = {NULL};
    n_calls = 0, fail_at = 1;
    OrtStatus *status = RegisterCustomOps(&options, &base);
    fail_at = 0;
    CHECK(status && !options.domain);
    release_status(status);
    return 0;
}

static void *register_often(void *context) {
    for (int i = 0; i < 200; i++)
        if (RegisterCustomOps(context, &base))
            abort();
    return NULL;
}

static int check_registrations(void) {
    pthread_t thread[3];
    OrtSessionOptions options[3] = {{NULL}};
    for (int i = 0; i < 3; i++)
        CHECK(!pthread_create(&thread[i], NULL, register_often, &options[i]));
    for (int i = 0; i < 3; i++)
        CHECK(!pthread_join(thread[i], NULL));
    CHECK(n_domains == 1 && domains[0].n_ops == 6 && domains[0].n_uses == 600);
    CHECK(options[0].domain == &domains[0] && options[2].domain == &domains[0]);
    OrtStatus *status = NULL;
    for (api_number = 1; api_number < MOST_DOMAINS && !status; api_number++)
        status = RegisterCustomOps(&options[0], &base);
    CHECK(status && n_domains == 16 && strstr(status->text, "more ONNX Runtimes than 16"));
    release_status(status);
    api_number = 0;
    return 0;
}

/* One node from its making to its end, with whatever is refused on the way. */
static OrtStatus *live_through(const OrtCustomOp *op, const OrtKernelInfo *info, OrtKernelContext *context) {
    void *kernel = NULL;
    OrtStatus *status = op->CreateKernelV2(op, (const OrtApi *)table[0], info, &kernel);
    if (status)
        return status;
    for (int run = 0; run < 2 && !status; run++)
        status = op->KernelComputeV2(kernel, context);
    op->KernelDestroy(kernel);
    return status;
}

/* Each call of the runtime is refused in turn, until there are no more. */
static int check_node(const OrtCustomOp *op, int is_constant, int64_t bits, uint8_t *codes, const int64_t *dim,
                      size_t rank) {
    static float x[TOKENS * COLUMNS], y[TOKENS * ROWS], scales[ROWS];
    for (int i = 0; i < TOKENS * COLUMNS; i++)
        x[i] = (float)(i % 7) - 3;
    const OrtValue of_x = {2, {TOKENS, COLUMNS}, x}, s = {1, {ROWS}, scales};
    OrtValue b = {rank, {0}, codes};
    memcpy(b.dim, dim, rank * sizeof *dim);
    const OrtKernelInfo info = {bits, {NULL, is_constant ? &b : NULL, is_constant ? &s : NULL}};
    OrtKernelContext context = {{&of_x, &b, &s}, {2, {TOKENS, ROWS}, y}};
    for (fail_at = 1;; fail_at++) {
        n_calls = 0;
        const uint64_t made = edgebit_ort_kernels();
        OrtStatus *status = live_through(op, &info, &context);
        CHECK(status || edgebit_ort_kernels() == made + 1);
        if (n_calls < fail_at) {
            CHECK(!status && !live);
            break;
        }
        if (status)
            release_status(status);
        CHECK(!live);
    }
    CHECK(fail_at > 20);
    return 0;
}

static int check_nodes(void) {
    static uint8_t codes[ROWS * (COLUMNS + 4)];
    int64_t n2[] = {1, (ROWS + 3) / 4, (COLUMNS + 63) / 64, 4, 16}, u8[] = {ROWS, COLUMNS + 4};
    for (int is_constant = 0; is_constant < 2; is_constant++)
        if (check_node(domains[0].op[0], is_constant, 15, codes, n2, 5) ||
            check_node(domains[0].op[0], is_constant, 0, codes, n2, 5) ||
            check_node(domains[0].op[3], is_constant, 0, codes, u8, 2))
            return 1;
    return 0;
}

/* Inference says nothing where it cannot, and is never an error. */
static int check_inference(void) {
    const OrtCustomOp *op = domains[0].op[0];
    for (fail_at = 1;; fail_at++) {
        n_calls = 0;
        OrtShapeInferContext context = {.input = {2, {-1, COLUMNS}, {"tokens", ""}}};
        CHECK(!op->InferOutputShapeFn(op, &context) && !live);
        CHECK(context.output.rank == (n_calls < fail_at ? 2 : 0));
        if (n_calls < fail_at) {
            CHECK(context.output.dim[0] == -1 && context.output.dim[1] == ROWS && context.output.name[0][0]);
            break;
        }
    }
    OrtShapeInferContext unnamed = {.input = {2, {-1, COLUMNS}, {"", ""}}}, scalar = {.output = {.rank = 9}};
    CHECK(!op->InferOutputShapeFn(op, &unnamed) && !unnamed.output.rank);
    CHECK(!op->InferOutputShapeFn(op, &scalar) && scalar.output.rank == 9);
    return 0;
}

int main(void) {
    fill_tables();
    if (check_old_runtime() || check_refused_registration() || check_registrations() || check_nodes() ||
        check_inference())
        return 1;
    if (live)
        return printf("%d things are left behind\n", live), 1;
    printf("the operators leave nothing behind\n");
    return 0;
}
