/* node.c - attributes and tensors of a node, through the runtime's table. */
#include "node.h"
#include "mem.h"

void eb_node_begin(eb_node *node, const OrtApi *api, const char *op, const OrtKernelInfo *info) {
    char name[64];
    size_t size = sizeof name;
    OrtStatus *failed = EB_ORT(api, KernelInfo_GetNodeName)(info, name, &size);
    if (failed) { /* a name that is longer: then none is told */
        EB_ORT(api, ReleaseStatus)(failed);
        name[0] = 0;
    }
    eb_error text;
    eb_fail(&text, "ai.edgebit::%s '%s'", op, name);
    node->api = api;
    eb_memcpy(node->name, text.text, sizeof node->name);
    node->name[sizeof node->name - 1] = 0;
}

OrtStatus *eb_node_refused(const eb_node *node, const eb_error *why) {
    eb_error text;
    eb_fail(&text, "%s: %s", node->name, why->text);
    return EB_ORT(node->api, CreateStatus)(EB_ORT_INVALID_ARGUMENT, text.text);
}

int64_t eb_node_optional(const eb_node *node, const OrtKernelInfo *info, const char *name, int64_t fallback) {
    int64_t value;
    OrtStatus *failed = EB_ORT(node->api, KernelInfoGetAttribute_int64)(info, name, &value);
    if (!failed)
        return value;
    EB_ORT(node->api, ReleaseStatus)(failed);
    return fallback;
}

OrtStatus *eb_node_attribute(const eb_node *node, const OrtKernelInfo *info, const char *name, int64_t most,
                             int64_t *out) {
    *out = eb_node_optional(node, info, name, 0);
    if (*out < 1 || *out > most)
        EB_REFUSE(node, "the attribute %s is missing, or is not an integer between 1 and %llu", name, (ull)most);
    return NULL;
}

OrtStatus *eb_node_tensor(const eb_node *node, const OrtValue *value, const char *what, eb_shape *shape, void **data) {
    const OrtApi *api = node->api;
    OrtTensorTypeAndShapeInfo *info;
    EB_TRY(EB_ORT(api, GetTensorTypeAndShape)(value, &info));
    OrtStatus *failed = EB_ORT(api, GetDimensionsCount)(info, &shape->rank);
    const int fits = !failed && shape->rank <= EB_MOST_DIMS;
    if (fits)
        failed = EB_ORT(api, GetDimensions)(info, shape->dim, shape->rank);
    EB_ORT(api, ReleaseTensorTypeAndShapeInfo)(info);
    EB_TRY(failed);
    if (!fits)
        EB_REFUSE(node, "%s has %u dimensions, and %u is the limit", what, (unsigned)shape->rank, EB_MOST_DIMS);
    return EB_ORT(api, GetTensorMutableData)((OrtValue *)value, data);
}

static void put(eb_shape_text *out, size_t *size, char c) {
    if (*size + 1 < sizeof out->text)
        out->text[(*size)++] = c;
}

eb_shape_text eb_shape_told(const int64_t *dim, size_t rank) {
    eb_shape_text out = {"["};
    size_t size = 1;
    for (size_t i = 0; i < rank; i++) {
        eb_error number;
        eb_fail(&number, "%s%llu", i ? ", " : "", (ull)dim[i]);
        for (const char *c = number.text; *c; c++)
            put(&out, &size, *c);
    }
    put(&out, &size, ']');
    out.text[size] = 0;
    return out;
}

int eb_shape_is(const eb_shape *shape, const int64_t *dim, size_t rank) {
    int same = shape->rank == rank;
    for (size_t i = 0; same && i < rank; i++)
        same = shape->dim[i] == dim[i];
    return same;
}
