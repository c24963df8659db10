/* ort_host.c - runs a model on ONNX Runtime in C, so that one program gives results on any architecture to be compared.
 *
 *   ort_host RUNTIME MODEL LIBRARY|none OUT floats IN ROWS    the model's one input is float [ROWS, all of IN / ROWS]
 *   ort_host RUNTIME MODEL LIBRARY|none OUT greedy N ID...    a decoder's logits of the prompt, and of N tokens after it
 *
 * OUT gets the floats of the output or of the logits, step after step. Standard output: the runtime's version, how many
 * kernels of LIBRARY were made, and the tokens. RUNTIME is libonnxruntime.so, whose functions are known by their places
 * in its table, which is only ever added to at its end. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { API_VERSION = 17, FLOAT = 1, INT64 = 7, DEVICE_ALLOCATOR = 0, MOST_NAMES = 256, MOST_TOKENS = 4096 };

typedef struct api {
    const void *at[1];
} api;
typedef struct api_base {
    const api *(*get_api)(uint32_t version);
    const char *(*version)(void);
} api_base;
typedef struct value value;
typedef struct status status;

static const api *ort;

static void need(status *failed, const char *what) {
    if (!failed)
        return;
    const char *(*message)(const status *) = (const char *(*)(const status *))ort->at[2];
    fprintf(stderr, "%s: %s\n", what, message(failed));
    exit(1);
}

/* CALL(place in the table, types of the arguments, what is done)(arguments) */
#define CALL(PLACE, WHAT, TYPES, ...) need(((status * (*)TYPES) ort->at[PLACE])(__VA_ARGS__), WHAT)

typedef struct model {
    void *session, *memory;
    size_t n_in, n_out;
    char *in[MOST_NAMES], *out[MOST_NAMES];
} model;

static void names(const model *of, int count_place, int name_place, size_t *n, char **list) {
    void *allocator;
    CALL(78, "allocator", (void **), &allocator);
    CALL(count_place, "names", (void *, size_t *), of->session, n);
    for (size_t i = 0; i < *n && i < MOST_NAMES; i++)
        CALL(name_place, "names", (void *, size_t, void *, char **), of->session, i, allocator, &list[i]);
}

static model open_model(const char *runtime, const char *path, const char *library) {
    void *handle = dlopen(runtime, RTLD_NOW), *env, *options;
    const api_base *(*get_base)(void) = handle ? (const api_base *(*)(void))dlsym(handle, "OrtGetApiBase") : NULL;
    if (!get_base || !(ort = get_base()->get_api(API_VERSION))) {
        fprintf(stderr, "%s: %s\n", runtime, handle ? "no ONNX Runtime of 1.17 or later" : dlerror());
        exit(1);
    }
    printf("%s\n", get_base()->version());
    model out;
    CALL(3, "environment", (int, const char *, void **), 3, "ort_host", &env);
    CALL(10, "options", (void **), &options);
    CALL(24, "threads", (void *, int), options, 2);
    if (strcmp(library, "none"))
        CALL(228, library, (void *, const char *), options, library);
    CALL(7, path, (void *, const char *, void *, void **), env, path, options, &out.session);
    CALL(69, "memory", (int, int, void **), DEVICE_ALLOCATOR, 0, &out.memory);
    names(&out, 30, 36, &out.n_in, out.in);
    names(&out, 31, 37, &out.n_out, out.out);
    void *made = strcmp(library, "none") ? dlopen(library, RTLD_NOW) : NULL;
    uint64_t (*kernels)(void) = made ? (uint64_t (*)(void))dlsym(made, "edgebit_ort_kernels") : NULL;
    const char *(*isa)(void) = made ? (const char *(*)(void))dlsym(made, "edgebit_ort_isa") : NULL;
    printf("%llu %s\n", kernels ? (unsigned long long)kernels() : 0, isa ? isa() : "-");
    return out;
}

static value *tensor(const model *of, void *data, size_t bytes, const int64_t *shape, size_t n_dims, int type) {
    value *out;
    CALL(49, "tensor", (void *, void *, size_t, const int64_t *, size_t, int, value **), of->memory, data, bytes, shape,
         n_dims, type, &out);
    return out;
}

static size_t dimensions(value *of, int64_t shape[8]) {
    void *info;
    size_t n;
    CALL(65, "shape", (value *, void **), of, &info);
    CALL(61, "shape", (void *, size_t *), info, &n);
    CALL(62, "shape", (void *, int64_t *, size_t), info, shape, n);
    return n;
}

static float *floats_of(value *of) {
    void *data;
    CALL(51, "data", (value *, void **), of, &data);
    return data;
}

static void run(const model *of, value *const *in, value **out) {
    memset(out, 0, of->n_out * sizeof *out);
    CALL(9, "run", (void *, const void *, char *const *, value *const *, size_t, char *const *, size_t, value **),
         of->session, NULL, of->in, in, of->n_in, of->out, of->n_out, out);
}

static void run_floats(const model *of, FILE *sink, const char *path, int64_t rows) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        exit(2);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    float *data = malloc(size);
    if (!data || fread(data, 1, size, file) != size)
        exit(2);
    fclose(file);
    const int64_t shape[2] = {rows, (int64_t)(size / sizeof *data) / rows};
    value *in = tensor(of, data, size, shape, 2, FLOAT), *out[MOST_NAMES];
    int64_t got[8], n = 1;
    run(of, &in, out);
    for (size_t i = 0, n_dims = dimensions(out[0], got); i < n_dims; i++)
        n *= got[i];
    fwrite(floats_of(out[0]), sizeof(float), (size_t)n, sink);
}

static int64_t highest(const float *row, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

static size_t place(char *const *list, size_t n, const char *name) {
    size_t i = 0;
    while (i < n && strcmp(list[i], name))
        i++;
    if (i == n) {
        fprintf(stderr, "the model has no %s\n", name);
        exit(1);
    }
    return i;
}

/* past_key_values.0.key is what was present.0.key */
static size_t present(const model *of, const char *past) {
    char name[128];
    snprintf(name, sizeof name, "present%s", strchr(past, '.'));
    return place(of->out, of->n_out, name);
}

static void run_greedy(const model *of, FILE *sink, int n_more, int n_ids, char **words) {
    int64_t ids[MOST_TOKENS], ones[MOST_TOKENS], vocabulary;
    value *in[MOST_NAMES], *out[MOST_NAMES];
    const size_t ids_at = place(of->in, of->n_in, "input_ids"), mask_at = place(of->in, of->n_in, "attention_mask");
    for (int i = 0; i < MOST_TOKENS; i++)
        ones[i] = 1, ids[i] = i < n_ids ? atoll(words[i]) : 0;
    for (size_t i = 0; i < of->n_in; i++) {
        void *type, *info;
        size_t n_dims;
        int64_t shape[8];
        if (i == ids_at || i == mask_at)
            continue;
        CALL(33, "type", (void *, size_t, void **), of->session, i, &type);
        CALL(55, "type", (void *, void **), type, &info);
        CALL(61, "shape", (void *, size_t *), info, &n_dims);
        CALL(62, "shape", (void *, int64_t *, size_t), info, shape, n_dims);
        shape[0] = 1, shape[2] = 0;
        in[i] = tensor(of, ones, 0, shape, n_dims, FLOAT);
    }
    for (int64_t have = 0, all = n_ids; all <= n_ids + n_more; all++) {
        in[ids_at] = tensor(of, ids + have, (size_t)(all - have) * 8, (int64_t[]){1, all - have}, 2, INT64);
        in[mask_at] = tensor(of, ones, (size_t)all * 8, (int64_t[]){1, all}, 2, INT64);
        run(of, in, out);
        int64_t shape[8];
        value *logits = out[place(of->out, of->n_out, "logits")];
        dimensions(logits, shape);
        vocabulary = shape[2];
        fwrite(floats_of(logits), sizeof(float), (size_t)(shape[1] * vocabulary), sink);
        ids[all] = highest(floats_of(logits) + (shape[1] - 1) * vocabulary, vocabulary);
        printf("%lld ", (long long)ids[all]);
        for (size_t i = 0; i < of->n_in; i++)
            if (i != ids_at && i != mask_at)
                in[i] = out[present(of, of->in[i])];
        have = all;
    }
    printf("\n");
}

int main(int argc, char **argv) {
    if (argc < 8 || argc > MOST_TOKENS / 2)
        return 2;
    const model opened = open_model(argv[1], argv[2], argv[3]);
    FILE *sink = fopen(argv[4], "wb");
    if (!sink)
        return 2;
    if (!strcmp(argv[5], "floats"))
        run_floats(&opened, sink, argv[6], atoll(argv[7]));
    else
        run_greedy(&opened, sink, atoi(argv[6]), argc - 7, argv + 7);
    return fclose(sink) != 0;
}
