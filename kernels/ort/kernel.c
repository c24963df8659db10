/* kernel.c - the two operators: what a node must have, and a call of its kernel. */
#include "kernel.h"
#include "mem.h"
#include "node.h"

enum { X, B, S, BLOCK_SCALES, N_INPUTS };

typedef struct kernel {
    eb_node node;
    const eb_ukernels *kernels;
    OrtAllocator *allocator;
    eb_float_kind kind;
    int is_int8, is_i15;
    int64_t columns, rows; /* attributes K and N */
} kernel;

static uint64_t n_made;

uint64_t eb_kernels_made(void) { return __atomic_load_n(&n_made, __ATOMIC_RELAXED); }

/* ---- weights ---- */

static OrtStatus *refuse_shape(const kernel *k, const char *what, const eb_shape *is, eb_shape_text wanted) {
    EB_REFUSE(&k->node, "%s has the shape %s; with K = %llu and N = %llu it must be %s", what,
              eb_shape_told(is->dim, is->rank).text, (ull)k->columns, (ull)k->rows, wanted.text);
}

/* One scale for all, one for each row or, with several groups, one for each row of each. */
static OrtStatus *ternary_scales(const kernel *k, const eb_shape *shape, int64_t groups, int *by_row) {
    const int64_t all[] = {groups, k->rows}, one[] = {1};
    const int is_one = groups == 1 && eb_shape_is(shape, one, 1),
              is_rows = groups == 1 && eb_shape_is(shape, all + 1, 1);
    *by_row = !is_one;
    if (is_one || is_rows || eb_shape_is(shape, all, 2))
        return NULL;
    if (groups > 1)
        return refuse_shape(k, "S", shape, eb_shape_told(all, 2));
    eb_error wanted;
    eb_fail(&wanted, "[1] or [%llu]", (ull)k->rows);
    eb_shape_text text;
    eb_memcpy(text.text, wanted.text, sizeof text.text);
    return refuse_shape(k, "S", shape, text);
}

static OrtStatus *ternary_weights(const kernel *k, const OrtValue *b, const OrtValue *s, eb_n2 *out) {
    eb_shape shape, scales;
    void *codes, *values;
    EB_TRY(eb_node_tensor(&k->node, b, "B", &shape, &codes));
    EB_TRY(eb_node_tensor(&k->node, s, "S", &scales, &values));
    const int64_t groups = shape.rank == 5 ? shape.dim[0] : 1;
    if (groups < 1 || k->columns % groups)
        EB_REFUSE(&k->node, "B has %llu groups of columns, and K = %llu is no multiple of that", (ull)groups,
                  (ull)k->columns);
    const int64_t in_group = k->columns / groups;
    const int64_t wanted[] = {groups, (k->rows + 3) / 4, (in_group + 63) / 64, 4, 16};
    if (!eb_shape_is(&shape, wanted, 5))
        return refuse_shape(k, "B", &shape, eb_shape_told(wanted, 5));
    if (in_group > EB_MOST_GROUP_COLUMNS)
        EB_REFUSE(&k->node, "a group has %llu columns, and %u is the limit", (ull)in_group, EB_MOST_GROUP_COLUMNS);
    int by_row;
    EB_TRY(ternary_scales(k, &scales, groups, &by_row));
    *out = (eb_n2){codes, values, (size_t)groups, by_row, k->is_i15};
    return NULL;
}

static OrtStatus *int8_weights(const kernel *k, const OrtValue *b, const OrtValue *s, eb_u8_rows *out) {
    eb_shape shape, scales;
    void *codes, *values;
    EB_TRY(eb_node_tensor(&k->node, b, "B", &shape, &codes));
    EB_TRY(eb_node_tensor(&k->node, s, "S", &scales, &values));
    const int64_t wanted[] = {k->rows, (k->columns + 15) / 16 * 16};
    if (!eb_shape_is(&shape, wanted, 2))
        return refuse_shape(k, "B", &shape, eb_shape_told(wanted, 2));
    if (!eb_shape_is(&scales, wanted, 1))
        return refuse_shape(k, "S", &scales, eb_shape_told(wanted, 1));
    *out = (eb_u8_rows){codes, values, (size_t)wanted[1]};
    return NULL;
}

/* ---- making a kernel ---- */

static OrtStatus *read_attributes(kernel *k, const OrtKernelInfo *info) {
    EB_TRY(eb_node_attribute(&k->node, info, "K", k->is_int8 ? EB_MOST_U8_COLUMNS : INT32_MAX, &k->columns));
    EB_TRY(eb_node_attribute(&k->node, info, "N", INT32_MAX, &k->rows));
    const int64_t bits = eb_node_optional(&k->node, info, "activation_bits", 8);
    if (!k->is_int8 && bits != 8 && bits != 15)
        EB_REFUSE(&k->node, "the attribute activation_bits must be 8 or 15");
    k->is_i15 = bits == 15;
    return NULL;
}

/* Weights that are constants are looked at when a model is loaded, not at the first run. */
static OrtStatus *check_constants(const kernel *k, const OrtKernelInfo *info) {
    const OrtValue *b, *s;
    int is_b, is_s;
    EB_TRY(EB_ORT(k->node.api, KernelInfoGetConstantInput_tensor)(info, B, &is_b, &b));
    EB_TRY(EB_ORT(k->node.api, KernelInfoGetConstantInput_tensor)(info, S, &is_s, &s));
    eb_n2 n2;
    eb_u8_rows u8;
    if (!is_b || !is_s)
        return NULL;
    return k->is_int8 ? int8_weights(k, b, s, &u8) : ternary_weights(k, b, s, &n2);
}

static OrtStatus *create(const OrtCustomOp *abi, const OrtApi *api, const OrtKernelInfo *info, void **out) {
    const eb_operator *op = (const eb_operator *)abi;
    OrtAllocator *allocator;
    void *room;
    EB_TRY(EB_ORT(api, GetAllocatorWithDefaultOptions)(&allocator)); /* the runtime's own: it is not given back */
    kernel k = {.kernels = op->kernels,
                .allocator = allocator,
                .kind = op->type == EB_ORT_FLOAT     ? EB_FLOAT32
                        : op->type == EB_ORT_FLOAT16 ? EB_FLOAT16
                                                     : EB_BFLOAT16,
                .is_int8 = op->is_int8};
    eb_node_begin(&k.node, api, op->name, info);
    EB_TRY(read_attributes(&k, info));
    EB_TRY(check_constants(&k, info));
    EB_TRY(EB_ORT(api, AllocatorAlloc)(allocator, sizeof k, &room));
    eb_memcpy(room, &k, sizeof k);
    *out = room;
    __atomic_fetch_add(&n_made, 1, __ATOMIC_RELAXED);
    return NULL;
}

static void destroy(void *made) {
    const kernel *k = made;
    OrtStatus *failed = EB_ORT(k->node.api, AllocatorFree)(k->allocator, made);
    (void)failed; /* freeing what was allocated does not fail */
}

/* ---- a call ---- */

/* The session's own threads. */
typedef struct ort_parallel {
    eb_parallel parallel; /* first */
    const OrtApi *api;
    const OrtKernelContext *context;
} ort_parallel;

static void run_parts(const eb_parallel *self, eb_part_fn *part, size_t n_parts, void *task) {
    const ort_parallel *of = (const ort_parallel *)self;
    if (n_parts > 1) {
        OrtStatus *failed = EB_ORT(of->api, KernelContext_ParallelFor)(of->context, part, n_parts, 0, task);
        if (!failed)
            return;
        EB_ORT(of->api, ReleaseStatus)(failed);
    }
    for (size_t i = 0; i < n_parts; i++)
        part(task, i);
}

static OrtStatus *begin_matmul(const kernel *k, OrtKernelContext *context, eb_matmul *m) {
    const OrtValue *x;
    OrtValue *y;
    eb_shape shape;
    void *from, *to;
    EB_TRY(EB_ORT(k->node.api, KernelContext_GetInput)(context, X, &x));
    EB_TRY(eb_node_tensor(&k->node, x, "X", &shape, &from));
    if (!shape.rank || shape.dim[shape.rank - 1] != k->columns)
        EB_REFUSE(&k->node, "X has the shape %s; its last dimension must be K = %llu",
                  eb_shape_told(shape.dim, shape.rank).text, (ull)k->columns);
    size_t tokens = 1;
    for (size_t i = 0; i + 1 < shape.rank; i++)
        tokens *= (size_t)shape.dim[i];
    shape.dim[shape.rank - 1] = k->rows;
    EB_TRY(EB_ORT(k->node.api, KernelContext_GetOutput)(context, 0, shape.dim, shape.rank, &y));
    EB_TRY(EB_ORT(k->node.api, GetTensorMutableData)(y, &to));
    *m = (eb_matmul){.kernels = k->kernels,
                     .x = from,
                     .y = to,
                     .kind = k->kind,
                     .tokens = tokens,
                     .rows = (size_t)k->rows,
                     .columns = (size_t)k->columns};
    return NULL;
}

static OrtStatus *compute(void *made, OrtKernelContext *context) {
    const kernel *k = made;
    const OrtApi *api = k->node.api;
    const ort_parallel threads = {{run_parts}, api, context};
    const OrtValue *b, *s;
    eb_matmul m;
    eb_n2 n2;
    eb_u8_rows u8;
    EB_TRY(EB_ORT(api, KernelContext_GetInput)(context, B, &b));
    EB_TRY(EB_ORT(api, KernelContext_GetInput)(context, S, &s));
    EB_TRY(k->is_int8 ? int8_weights(k, b, s, &u8) : ternary_weights(k, b, s, &n2));
    EB_TRY(begin_matmul(k, context, &m));
    if (!m.tokens)
        return NULL;
    m.parallel = &threads.parallel;
    void *scratch;
    EB_TRY(EB_ORT(api, AllocatorAlloc)(k->allocator, k->is_int8 ? eb_int8_scratch(&m) : eb_ternary_scratch(&m, &n2),
                                       &scratch));
    if (k->is_int8)
        eb_int8_matmul(&m, &u8, scratch);
    else
        eb_ternary_matmul(&m, &n2, scratch);
    return EB_ORT(api, AllocatorFree)(k->allocator, scratch);
}

/* ---- shape inference ---- */

/* Whether each dimension has a size or a name. The runtime takes one that has neither for a size of -1. */
static OrtStatus *is_known(const OrtApi *api, const OrtTensorTypeAndShapeInfo *info, const eb_shape *shape,
                           int *known) {
    const char *name[EB_MOST_DIMS];
    EB_TRY(EB_ORT(api, GetSymbolicDimensions)(info, name, shape->rank));
    *known = 1;
    for (size_t i = 0; i < shape->rank; i++)
        *known = *known && (shape->dim[i] >= 0 || name[i][0]);
    return NULL;
}

/* Y is shaped as X, with N for its last dimension. What is wrong with X is said by compute(), which knows all of it. */
static OrtStatus *put_shape(const OrtApi *api, OrtShapeInferContext *context, OrtTensorTypeAndShapeInfo *info) {
    const OrtOpAttr *attribute;
    eb_shape shape;
    size_t size;
    int64_t rows;
    int known;
    EB_TRY(EB_ORT(api, GetDimensionsCount)(info, &shape.rank));
    if (!shape.rank || shape.rank > EB_MOST_DIMS)
        return NULL;
    EB_TRY(EB_ORT(api, GetDimensions)(info, shape.dim, shape.rank));
    EB_TRY(is_known(api, info, &shape, &known));
    if (!known)
        return NULL;
    EB_TRY(EB_ORT(api, ShapeInferContext_GetAttribute)(context, "N", &attribute));
    EB_TRY(EB_ORT(api, ReadOpAttr)(attribute, EB_ORT_ATTRIBUTE_INT, &rows, sizeof rows, &size));
    shape.dim[shape.rank - 1] = rows;
    EB_TRY(EB_ORT(api, SetDimensions)(info, shape.dim, shape.rank));
    return EB_ORT(api, ShapeInferContext_SetOutputTypeShape)(context, 0, info);
}

static OrtStatus *infer_shape(const OrtCustomOp *abi, OrtShapeInferContext *context) {
    const OrtApi *api = ((const eb_operator *)abi)->api;
    OrtTensorTypeAndShapeInfo *info;
    OrtStatus *failed = EB_ORT(api, ShapeInferContext_GetInputTypeShape)(context, X, &info);
    if (!failed)
        failed = put_shape(api, context, info);
    if (failed) /* nothing is known of Y then: no error of the model */
        EB_ORT(api, ReleaseStatus)(failed);
    return NULL;
}

/* ---- what an operator says of itself ---- */

static const char *name_of(const OrtCustomOp *abi) { return ((const eb_operator *)abi)->name; }
static const char *provider(const OrtCustomOp *abi) { return (void)abi, (const char *)NULL; }
static size_t n_inputs(const OrtCustomOp *abi) { return (void)abi, N_INPUTS; }
static size_t n_outputs(const OrtCustomOp *abi) { return (void)abi, 1; }

static eb_ort_type input_type(const OrtCustomOp *abi, size_t index) {
    return index == B ? EB_ORT_UINT8 : index == S ? EB_ORT_FLOAT : ((const eb_operator *)abi)->type;
}

static eb_ort_type output_type(const OrtCustomOp *abi, size_t index) {
    return (void)index, ((const eb_operator *)abi)->type;
}

static int input_kind(const OrtCustomOp *abi, size_t index) {
    return (void)abi, index == BLOCK_SCALES ? EB_ORT_OPTIONAL : EB_ORT_REQUIRED;
}

static int output_kind(const OrtCustomOp *abi, size_t index) { return (void)abi, (void)index, EB_ORT_REQUIRED; }
static int memory_kind(const OrtCustomOp *abi, size_t index) { return (void)abi, (void)index, 0; }
static int since(const OrtCustomOp *abi) { return (void)abi, 1; }
static int until(const OrtCustomOp *abi) { return (void)abi, INT32_MAX; }

void eb_operators_fill(eb_operator operators[EB_OPERATORS], const OrtApi *api, const eb_ukernels *kernels) {
    static const eb_ort_type types[] = {EB_ORT_FLOAT, EB_ORT_FLOAT16, EB_ORT_BFLOAT16};
    for (int i = 0; i < EB_OPERATORS; i++)
        operators[i] = (eb_operator){.abi = {.version = EB_ORT_API,
                                             .GetName = name_of,
                                             .GetExecutionProviderType = provider,
                                             .GetInputType = input_type,
                                             .GetInputTypeCount = n_inputs,
                                             .GetOutputType = output_type,
                                             .GetOutputTypeCount = n_outputs,
                                             .KernelDestroy = destroy,
                                             .GetInputCharacteristic = input_kind,
                                             .GetOutputCharacteristic = output_kind,
                                             .GetInputMemoryType = memory_kind,
                                             .CreateKernelV2 = create,
                                             .KernelComputeV2 = compute,
                                             .InferOutputShapeFn = infer_shape,
                                             .GetStartVersion = since,
                                             .GetEndVersion = until},
                                     .name = i < EB_OPERATORS / 2 ? "TernaryMatMul" : "Int8MatMul",
                                     .is_int8 = i >= EB_OPERATORS / 2,
                                     .type = types[i % (EB_OPERATORS / 2)],
                                     .api = api,
                                     .kernels = kernels};
}
