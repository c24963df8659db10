/* node.h - a node of a graph as its kernel sees it: attributes, the shapes of tensors, and errors that say which node. */
#ifndef EB_ORT_NODE_H
#define EB_ORT_NODE_H

#include "edgebit.h"
#include "ort_abi.h"
#include "status.h"

enum { EB_MOST_DIMS = 16 };

typedef struct eb_shape {
    size_t rank;
    int64_t dim[EB_MOST_DIMS];
} eb_shape;

/* What is said of a node: its operator and name. */
typedef struct eb_node {
    const OrtApi *api;
    char name[96];
} eb_node;

/* Reads the node's name. `op` is that of the operator. */
void eb_node_begin(eb_node *node, const OrtApi *api, const char *op, const OrtKernelInfo *info);

/* Leaves the function with a status that says "<operator> '<name>': <format>". */
#define EB_REFUSE(node, ...)                                                                                           \
    do {                                                                                                               \
        eb_error why;                                                                                                  \
        eb_fail(&why, __VA_ARGS__);                                                                                    \
        return eb_node_refused(node, &why);                                                                            \
    } while (0)
OrtStatus *eb_node_refused(const eb_node *node, const eb_error *why);

/* Goes back with a status that is not success. */
#define EB_TRY(call)                                                                                                   \
    do {                                                                                                               \
        OrtStatus *eb_tried = (call);                                                                                  \
        if (eb_tried)                                                                                                  \
            return eb_tried;                                                                                           \
    } while (0)

/* An integer attribute between 1 and `most`. */
OrtStatus *eb_node_attribute(const eb_node *node, const OrtKernelInfo *info, const char *name, int64_t most,
                             int64_t *out);

/* An integer attribute, or `fallback` where the node has none of that name. */
int64_t eb_node_optional(const eb_node *node, const OrtKernelInfo *info, const char *name, int64_t fallback);

/* A tensor's shape and where its elements lie. `what` is its name in messages. */
OrtStatus *eb_node_tensor(const eb_node *node, const OrtValue *value, const char *what, eb_shape *shape, void **data);

/* "[2, 40, 64]". */
typedef struct eb_shape_text {
    char text[160];
} eb_shape_text;
eb_shape_text eb_shape_told(const int64_t *dim, size_t rank);

int eb_shape_is(const eb_shape *shape, const int64_t *dim, size_t rank);

#endif
