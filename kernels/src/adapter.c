/* adapter.c - reads an adapter file: nothing of it is used as a size or an index before it is checked, and every value is
 * looked at. A rank is at most 2^10 and a row or column at most 2^18, so no size overflows 64 bits. */
#include "adapter.h"
#include "crc32.h"
#include "fingerprint.h"
#include "model_check.h"

enum { VERSION = 1, HEADER_SIZE = 128, ENTRY_SIZE = 32, NAME_AT = 32, CONTENT_SUM_AT = 120, HEADER_SUM_AT = 124 };
static const unsigned char magic[8] = {0x89, 'E', 'B', 'A', '\r', '\n', 0x1a, '\n'};

typedef struct projection {
    uint32_t role; /* as in section TENS of a model file */
    unsigned place;
} projection;

static const projection projections[EB_N_PROJECTIONS] = {{17, EB_Q_PROJ},   {18, EB_K_PROJ},    {19, EB_V_PROJ},
                                                         {21, EB_O_PROJ},   {23, EB_GATE_PROJ}, {24, EB_UP_PROJ},
                                                         {26, EB_DOWN_PROJ}};

/* Of projections, by the role or the place; EB_N_PROJECTIONS where there is none. */
static unsigned by_role(uint32_t role) {
    unsigned i = 0;
    while (i < EB_N_PROJECTIONS && projections[i].role != role)
        i++;
    return i;
}

static unsigned by_place(unsigned place) {
    unsigned i = 0;
    while (i < EB_N_PROJECTIONS && projections[i].place != place)
        i++;
    return i;
}

const eb_low_rank *eb_adapter_pair(const eb_adapter *adapter, uint32_t layer, unsigned place) {
    if (!adapter)
        return NULL;
    const eb_low_rank *pair = &adapter->pairs[(size_t)layer * EB_N_PROJECTIONS + by_place(place)];
    return pair->rank ? pair : NULL;
}

/* ---- header ---- */

static int is_name_char(unsigned char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
}

static eb_status read_name(eb_adapter *adapter, const unsigned char *field, eb_error *error) {
    size_t length = 0;
    while (length < EB_ADAPTER_NAME && is_name_char(field[length]))
        length++;
    if (!length || !all_zero(field + length, EB_ADAPTER_NAME - length))
        FAIL(EB_BAD_FORMAT, "adapter: its name is not 1 to %d letters, digits, '.', '_' and '-'", EB_ADAPTER_NAME);
    eb_memcpy(adapter->name, field, length);
    return EB_OK;
}

static eb_status check_header(eb_adapter *adapter, const unsigned char *file, uint64_t size, eb_error *error) {
    if (size < HEADER_SIZE || eb_memcmp(file, magic, sizeof magic))
        FAIL(EB_BAD_FORMAT, "adapter: not an adapter file (it does not begin with \\x89EBA)");
    if (eb_crc32(0, file, HEADER_SUM_AT) != eb_load_u32(file + HEADER_SUM_AT))
        FAIL(EB_BAD_FORMAT, "adapter: the header's sum is wrong: the file is damaged. Copy it again");
    if (eb_load_u32(file + 8) != VERSION)
        FAIL(EB_UNSUPPORTED, "adapter: version %u of the adapter format; this library knows version %d",
             eb_load_u32(file + 8), VERSION);
    if (eb_load_u64(file + 16) != size)
        FAIL(EB_BAD_FORMAT, "adapter: the header says %llu bytes, there are %llu: a copy cut short. Copy it again",
             (ull)eb_load_u64(file + 16), (ull)size);
    if (!all_zero(file + NAME_AT + EB_ADAPTER_NAME, CONTENT_SUM_AT - NAME_AT - EB_ADAPTER_NAME))
        FAIL(EB_BAD_FORMAT, "adapter: reserved bytes of the header are not zero");
    const eb_status status = read_name(adapter, file + NAME_AT, error);
    if (status)
        return status;
    if (eb_crc32(0, file + HEADER_SIZE, (size_t)(size - HEADER_SIZE)) != eb_load_u32(file + CONTENT_SUM_AT))
        FAIL(EB_BAD_FORMAT, "adapter %s: the content's sum is wrong: the file is damaged. Copy it again",
             adapter->name);
    if (eb_load_u64(file + 24) != eb_weights_fingerprint(adapter->model))
        FAIL(EB_UNSUPPORTED,
             "adapter %s was made for other weights than those of %s. Convert it for this model (edgebit adapter "
             "convert --for)",
             adapter->name, adapter->model->name);
    return EB_OK;
}

/* ---- pairs ---- */

/* What is left of the file's content. */
typedef struct rest {
    const unsigned char *at;
    uint64_t size;
} rest;

/* [size] bytes, which zeros follow up to a multiple of 64; NULL where there are not so many. */
static const void *take(rest *from, uint64_t size) {
    const uint64_t whole = to_64(size);
    if (from->size < whole || !all_zero(from->at + size, whole - size))
        return NULL;
    const void *taken = from->at;
    from->at += whole;
    from->size -= whole;
    return taken;
}

static int are_finite_halves(const void *values, uint64_t n) {
    uint32_t any = 0;
    for (uint64_t i = 0; i < n; i++)
        any |= (eb_load_u16((const unsigned char *)values + 2 * i) & 0x7c00u) == 0x7c00u;
    return !any;
}

static int are_codes(const int8_t *values, uint64_t n) {
    int any = 0;
    for (uint64_t i = 0; i < n; i++)
        any |= values[i] == -128;
    return !any;
}

static int is_finite(float x) { return x - x == 0; }

static int are_finite(const float *values, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (!is_finite(values[i]))
            return 0;
    return 1;
}

/* Whether zeros fill up the columns of A and the rows of B to a multiple of 16. */
static int is_filled_with_zeros(const eb_low_rank *pair) {
    const uint64_t size = pair->encoding == EB_I8 ? 1 : 2, stride = up(pair->columns, 16), left = pair->rows % 16;
    const unsigned char *a = pair->a, *b = (const unsigned char *)pair->b + (pair->rows - left) * pair->rank * size;
    int are_zeros = 1;
    for (uint64_t r = 0; r < pair->rank; r++) {
        are_zeros &= all_zero(a + (r * stride + pair->columns) * size, (stride - pair->columns) * size);
        are_zeros &= !left || all_zero(b + (r * 16 + left) * size, (16 - left) * size);
    }
    return are_zeros;
}

/* Takes the pair's values from the content. Part by part: the caller has no rank yet where one is missing. */
static eb_status take_values(const eb_adapter *adapter, const char *of, uint32_t layer, eb_low_rank *pair, rest *from,
                             eb_error *error) {
    const int is_i8 = pair->encoding == EB_I8;
    const uint64_t n_a = (uint64_t)pair->rank * up(pair->columns, 16), n_b = (uint64_t)pair->rank * up(pair->rows, 16);
    const uint64_t size = is_i8 ? 1 : 2;
    pair->a = take(from, n_a * size);
    pair->a_scales = pair->a && is_i8 ? take(from, pair->rank * sizeof(float)) : NULL;
    const int has_a = pair->a && (pair->a_scales || !is_i8);
    pair->b = has_a ? take(from, n_b * size) : NULL;
    pair->b_scales = pair->b && is_i8 ? take(from, pair->rows * sizeof(float)) : NULL;
    if (!pair->b || (is_i8 && !pair->b_scales))
        FAIL(EB_BAD_FORMAT,
             "adapter %s: layer %u, %s: its values go past the end of the file, or not zeros follow them",
             adapter->name, layer, of);
    const int sound = is_i8 ? are_codes(pair->a, n_a) && are_codes(pair->b, n_b) &&
                                  are_finite(pair->a_scales, pair->rank) && are_finite(pair->b_scales, pair->rows)
                            : are_finite_halves(pair->a, n_a) && are_finite_halves(pair->b, n_b);
    if (!sound)
        FAIL(EB_BAD_FORMAT, "adapter %s: layer %u, %s: a value or a scale is no finite number, or a code is -128",
             adapter->name, layer, of);
    if (!is_filled_with_zeros(pair))
        FAIL(EB_BAD_FORMAT, "adapter %s: layer %u, %s: its columns or rows are not filled up with zeros", adapter->name,
             layer, of);
    return EB_OK;
}

/* Reads an entry of the table and its values. *last: layer and projection of the one before, and then of this one. */
static eb_status read_pair(eb_adapter *adapter, const unsigned char *entry, int64_t *last, rest *values,
                           eb_error *error) {
    const uint32_t role = eb_load_u32(entry), layer = eb_load_u32(entry + 4);
    const unsigned which = by_role(role);
    if (which == EB_N_PROJECTIONS || layer >= adapter->model->info.n_layers)
        FAIL(EB_BAD_FORMAT, "adapter %s: role %u of layer %u is no projection of this model", adapter->name, role,
             layer);
    const char *of = eb_layer_tensor_name(projections[which].place);
    const int64_t place = (int64_t)layer * EB_N_PROJECTIONS + which;
    if (place <= *last)
        FAIL(EB_BAD_FORMAT, "adapter %s: layer %u, %s: stands twice or out of order", adapter->name, layer, of);
    *last = place;
    eb_low_rank pair = {.encoding = (eb_encoding)eb_load_u32(entry + 8),
                        .rank = eb_load_u32(entry + 12),
                        .columns = eb_load_u32(entry + 16),
                        .rows = eb_load_u32(entry + 20),
                        .scale = eb_load_f32(entry + 24)};
    if (pair.encoding != EB_F16 && pair.encoding != EB_I8)
        FAIL(EB_UNSUPPORTED, "adapter %s: layer %u, %s: encoding %u is neither f16 nor i8", adapter->name, layer, of,
             (unsigned)pair.encoding);
    if (pair.rank < 1 || pair.rank > EB_MAX_RANK)
        FAIL(EB_BAD_FORMAT, "adapter %s: layer %u, %s: rank %u; it can be 1 to %d", adapter->name, layer, of, pair.rank,
             EB_MAX_RANK);
    const eb_tensor *tensor = &adapter->model->layers[layer].tensor[projections[which].place];
    if (pair.rows != tensor->rows || pair.columns != tensor->columns)
        FAIL(EB_BAD_FORMAT, "adapter %s: layer %u, %s: it is for %u x %u, the model has %u x %u", adapter->name, layer,
             of, pair.rows, pair.columns, tensor->rows, tensor->columns);
    if (!is_finite(pair.scale) || eb_load_u32(entry + 28))
        FAIL(EB_BAD_FORMAT, "adapter %s: layer %u, %s: its scale is no finite number, or reserved bytes are not zero",
             adapter->name, layer, of);
    const eb_status status = take_values(adapter, of, layer, &pair, values, error);
    if (status)
        return status;
    if (pair.rank > adapter->widest_rank)
        adapter->widest_rank = pair.rank;
    adapter->has_gate |= projections[which].place == EB_GATE_PROJ || projections[which].place == EB_UP_PROJ;
    adapter->pairs[place] = pair;
    return EB_OK;
}

static eb_status read_pairs(eb_adapter *adapter, const unsigned char *file, uint64_t size, eb_error *error) {
    const size_t places = (size_t)adapter->model->info.n_layers * EB_N_PROJECTIONS;
    const uint32_t n = eb_load_u32(file + 12);
    if (n < 1 || n > places)
        FAIL(EB_BAD_FORMAT, "adapter %s: %u pairs; for this model there can be 1 to %llu", adapter->name, n,
             (ull)places);
    rest from = {file + HEADER_SIZE, size - HEADER_SIZE};
    const unsigned char *table = take(&from, (uint64_t)n * ENTRY_SIZE);
    if (!table)
        FAIL(EB_BAD_FORMAT, "adapter %s: the table of %u pairs goes past the end of the file, or not zeros follow it",
             adapter->name, n);
    adapter->pairs = eb_alloc(&adapter->host, places, sizeof *adapter->pairs);
    if (!adapter->pairs)
        FAIL(EB_NO_MEMORY, "adapter %s: no memory for its table", adapter->name);
    eb_memset(adapter->pairs, 0, places * sizeof *adapter->pairs);
    int64_t last = -1;
    for (uint32_t i = 0; i < n; i++) {
        const eb_status status = read_pair(adapter, table + (size_t)i * ENTRY_SIZE, &last, &from, error);
        if (status)
            return status;
    }
    if (from.size)
        FAIL(EB_BAD_FORMAT, "adapter %s: %llu bytes are left over after the last pair", adapter->name, (ull)from.size);
    return EB_OK;
}

/* ---- the interface ---- */

eb_status eb_adapter_open(const eb_model *model, const void *data, uint64_t size, eb_adapter **out, eb_error *error) {
    if (!model || !data || !out)
        FAIL(EB_BAD_ARGUMENT, "eb_adapter_open: model, data or out is null");
    *out = NULL;
    if ((uintptr_t)data % 64)
        FAIL(EB_BAD_ARGUMENT, "eb_adapter_open: data is not aligned to 64 bytes");
    eb_adapter *adapter = eb_alloc(&model->host, 1, sizeof *adapter);
    if (!adapter)
        FAIL(EB_NO_MEMORY, "no memory for an adapter");
    eb_memset(adapter, 0, sizeof *adapter);
    adapter->host = model->host;
    adapter->model = model;
    eb_status status = check_header(adapter, data, size, error);
    if (!status)
        status = read_pairs(adapter, data, size, error);
    if (status) {
        eb_adapter_close(adapter);
        return status;
    }
    adapter->fingerprint = eb_fingerprint(EB_FINGERPRINT_BEGIN, data, size);
    adapter->fingerprint += !adapter->fingerprint;
    *out = adapter;
    return EB_OK;
}

void eb_adapter_close(eb_adapter *adapter) {
    if (!adapter)
        return;
    const eb_host host = adapter->host;
    if (adapter->pairs)
        host.free(adapter->pairs);
    host.free(adapter);
}

const char *eb_adapter_name(const eb_adapter *adapter) { return adapter ? adapter->name : NULL; }

uint64_t eb_adapter_fingerprint(const eb_adapter *adapter) { return adapter ? adapter->fingerprint : 0; }
