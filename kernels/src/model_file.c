/* model_file.c - maps a model file and checks it: nothing of it is used as a size, an offset or an index before that.
 *
 * All arithmetic is in 64 bits on numbers of at most 2^22 (a row, a column), or by subtraction from a size that is
 * known to be larger, so none of it can overflow. */
#include "model_file.h"
#include "crc32.h"
#include "model_check.h"

enum { VERSION = 2, HEADER_SIZE = 64, SECTION_ENTRY_SIZE = 32 };
static const unsigned char magic[8] = {0x89, 'E', 'B', 'M', '\r', '\n', 0x1a, '\n'};

const eb_section *eb_find_section(const eb_model *model, const char *tag) {
    for (uint32_t s = 0; s < model->n_sections; s++)
        if (!eb_memcmp(model->sections[s].tag, tag, 4))
            return &model->sections[s];
    return NULL;
}

/* ---- header and section table ---- */

static eb_status check_header(const eb_model *model, eb_error *error) {
    const unsigned char *head = model->base;
    if (model->size < HEADER_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: %llu bytes are too few for a model file", model->name, (ull)model->size);
    if (eb_memcmp(head, magic, sizeof magic))
        FAIL(EB_BAD_FORMAT, "%s: not a model file (it does not begin with \\x89EBM)", model->name);
    if (eb_crc32(0, head, 28) != eb_load_u32(head + 28))
        FAIL(EB_BAD_FORMAT, "%s: the header's sum is wrong: the file is damaged. Copy it again", model->name);
    if (eb_load_u32(head + 8) != VERSION)
        FAIL(EB_UNSUPPORTED, "%s: version %u of the model format; this library knows version %d", model->name,
             eb_load_u32(head + 8), VERSION);
    if (eb_load_u64(head + 16) != model->size)
        FAIL(EB_BAD_FORMAT, "%s: the header says %llu bytes, there are %llu: a copy cut short. Copy it again",
             model->name, (ull)eb_load_u64(head + 16), (ull)model->size);
    if (!all_zero(head + 32, 32))
        FAIL(EB_BAD_FORMAT, "%s: reserved bytes of the header are not zero", model->name);
    const uint32_t n = eb_load_u32(head + 12);
    if (n < 1 || n > EB_MAX_SECTIONS)
        FAIL(EB_BAD_FORMAT, "%s: %u sections; there can be 1 to %d", model->name, n, EB_MAX_SECTIONS);
    if (HEADER_SIZE + (uint64_t)n * SECTION_ENTRY_SIZE > model->size)
        FAIL(EB_BAD_FORMAT, "%s: the table of %u sections goes past the end of the file", model->name, n);
    if (eb_crc32(0, head + HEADER_SIZE, (size_t)n * SECTION_ENTRY_SIZE) != eb_load_u32(head + 24))
        FAIL(EB_BAD_FORMAT, "%s: the section table's sum is wrong: the file is damaged. Copy it again", model->name);
    return EB_OK;
}

static int is_tag_char(unsigned char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static int is_known_tag(const char *tag) {
    static const char known[][5] = {"CONF", "TENS", "DATA", "TOKN", "PRMT", "SCHM", "META", "PROB"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!eb_memcmp(known[i], tag, 4))
            return 1;
    return 0;
}

static eb_status check_sections(eb_model *model, eb_error *error) {
    const uint32_t n = eb_load_u32(model->base + 12);
    uint64_t end = HEADER_SIZE + (uint64_t)n * SECTION_ENTRY_SIZE;
    for (uint32_t s = 0; s < n; s++) {
        const unsigned char *entry = model->base + HEADER_SIZE + s * SECTION_ENTRY_SIZE;
        eb_section section = {
            .crc = eb_load_u32(entry + 4), .offset = eb_load_u64(entry + 8), .size = eb_load_u64(entry + 16)};
        eb_memcpy(section.tag, entry, 4);
        char tag[5] = {0};
        eb_memcpy(tag, entry, 4);
        for (int i = 0; i < 4; i++)
            if (!is_tag_char((unsigned char)tag[i]))
                FAIL(EB_BAD_FORMAT, "%s: section %u has a tag that is not letters and digits", model->name, s);
        if (eb_find_section(model, tag))
            FAIL(EB_BAD_FORMAT, "%s: section %s stands twice", model->name, tag);
        if (!is_known_tag(tag) && tag[0] >= 'A' && tag[0] <= 'Z')
            FAIL(EB_UNSUPPORTED, "%s: section %s is not known to this library, and the model needs it", model->name,
                 tag);
        if (!all_zero(entry + 24, 8))
            FAIL(EB_BAD_FORMAT, "%s: section %s: reserved bytes of its table entry are not zero", model->name, tag);
        if (section.offset != to_64(end))
            FAIL(EB_BAD_FORMAT, "%s: section %s begins at byte %llu, but the place after the one before it is %llu",
                 model->name, tag, (ull)section.offset, (ull)to_64(end));
        if (section.offset > model->size || section.size > model->size - section.offset)
            FAIL(EB_BAD_FORMAT, "%s: section %s (%llu bytes at %llu) goes past the end of the file, %llu bytes",
                 model->name, tag, (ull)section.size, (ull)section.offset, (ull)model->size);
        if (!all_zero(model->base + end, section.offset - end))
            FAIL(EB_BAD_FORMAT, "%s: the bytes between two sections, before %s, are not zero", model->name, tag);
        const int is_data = !eb_memcmp(tag, "DATA", 4);
        if (!is_data && eb_crc32(0, model->base + section.offset, (size_t)section.size) != section.crc)
            FAIL(EB_BAD_FORMAT, "%s: section %s: its sum is wrong: the file is damaged. Copy it again", model->name,
                 tag);
        end = section.offset + section.size;
        model->sections[model->n_sections++] = section;
    }
    if (model->size != to_64(end) || !all_zero(model->base + end, model->size - end))
        FAIL(EB_BAD_FORMAT, "%s: after the last section, which ends at byte %llu, the file has more than its zeros",
             model->name, (ull)end);
    static const char needed[][5] = {"CONF", "TENS", "DATA", "META"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (!eb_find_section(model, needed[i]))
            FAIL(EB_BAD_FORMAT, "%s: section %s is missing", model->name, needed[i]);
    return EB_OK;
}

/* The tokens of section TOKN, which is looked at whole where a tokenizer is opened: every id that the model gives has
 * a place in it. CONF is checked. */
static eb_status check_token_count(const eb_model *model, eb_error *error) {
    enum { COUNT_AT = 4 };
    const eb_section *section = eb_find_section(model, "TOKN");
    if (!section)
        return EB_OK;
    const uint32_t n = section->size < COUNT_AT + 4 ? 0 : eb_load_u32(model->base + section->offset + COUNT_AT);
    if (n < model->info.vocab_size)
        FAIL(EB_BAD_FORMAT,
             "%s: section TOKN has %u tokens, CONF a vocabulary of %u: the tokenizer is another model's. "
             "Convert the checkpoint again",
             model->name, n, model->info.vocab_size);
    return EB_OK;
}

/* ---- opening and closing ---- */

static eb_status check_model(eb_model *model, eb_error *error) {
    eb_status status = check_header(model, error);
    if (!status)
        status = check_sections(model, error);
    if (!status)
        status = eb_check_config(model, error);
    if (!status)
        status = check_token_count(model, error);
    if (!status)
        status = eb_check_tensors(model, error);
    return status;
}

/* The last part of a path, cut to fit. */
static void set_name(eb_model *model, const char *path) {
    const char *last = path;
    for (const char *c = path; *c; c++)
        if (*c == '/' && c[1])
            last = c + 1;
    size_t i = 0;
    for (; last[i] && i + 1 < sizeof model->name; i++)
        model->name[i] = last[i];
    model->name[i] = 0;
}

static eb_status new_model(const eb_host *host, const char *name, eb_model **out, eb_error *error) {
    const eb_status status = eb_host_check(host, error);
    if (status)
        return status;
    *out = eb_alloc(host, 1, sizeof(eb_model));
    if (!*out)
        FAIL(EB_NO_MEMORY, "%s: no memory for the model's table", name);
    eb_memset(*out, 0, sizeof(eb_model));
    (*out)->host = *host;
    set_name(*out, name);
    return EB_OK;
}

/* Maps [size] bytes at `offset` of the open file `fd` into model->base; size 0: up to the file's end. */
static eb_status map(eb_model *model, int fd, uint64_t offset, uint64_t size, eb_error *error) {
    enum { SEEK_END_ = 2, PROT_READ_ = 1, LARGEST_PAGE = 65536 };
    const int64_t end = model->host.lseek(fd, 0, SEEK_END_);
    if (end < 0)
        FAIL(EB_IO, "%s: its size cannot be read: not a plain file", model->name);
    if (offset > (uint64_t)end || size > (uint64_t)end - offset)
        FAIL(EB_BAD_FORMAT, "%s: %llu bytes at %llu were asked for, the file has %llu", model->name, (ull)size,
             (ull)offset, (ull)end);
    if (!size)
        size = (uint64_t)end - offset;
    if (size < HEADER_SIZE)
        FAIL(EB_BAD_FORMAT, "%s: %llu bytes are too few for a model file", model->name, (ull)size);
    const uint64_t before = offset % LARGEST_PAGE; /* a mapping begins with a page, of whatever size */
    if (size > SIZE_MAX / 2)
        FAIL(EB_NO_MEMORY, "%s: too large to map on this machine", model->name);
    void *mapping = model->host.mmap(NULL, (size_t)(size + before), PROT_READ_, model->host.map_private, fd,
                                     (int64_t)(offset - before));
    if (mapping == (void *)-1)
        FAIL(EB_IO, "%s: %llu bytes cannot be mapped", model->name, (ull)size);
    model->mapping = mapping;
    model->mapping_size = (size_t)(size + before);
    model->base = (const unsigned char *)mapping + before;
    model->size = size;
    return EB_OK;
}

eb_status eb_model_open(const eb_host *host, const char *path, uint64_t offset, uint64_t size, eb_model **out,
                        eb_error *error) {
    if (!path || !out)
        FAIL(EB_BAD_ARGUMENT, "eb_model_open: path or out is null");
    *out = NULL;
    eb_model *model = NULL;
    eb_status status = new_model(host, path, &model, error);
    if (status)
        return status;
    if (offset % 64) {
        eb_fail(error, "%s: the model's place in it, byte %llu, is no multiple of 64", model->name, (ull)offset);
        status = EB_BAD_ARGUMENT;
    }
    if (!status) {
        enum { O_RDONLY_ = 0 };
        const int fd = model->host.open(path, O_RDONLY_);
        if (fd < 0) {
            eb_fail(error, "%s: cannot be opened for reading", path);
            status = EB_IO;
        } else {
            status = map(model, fd, offset, size, error);
            model->host.close(fd);
        }
    }
    if (!status)
        status = check_model(model, error);
    if (status) {
        eb_model_close(model);
        return status;
    }
    *out = model;
    return EB_OK;
}

eb_status eb_model_open_memory(const eb_host *host, const void *data, uint64_t size, eb_model **out, eb_error *error) {
    if (!data || !out)
        FAIL(EB_BAD_ARGUMENT, "eb_model_open_memory: data or out is null");
    *out = NULL;
    if ((uintptr_t)data % 64)
        FAIL(EB_BAD_ARGUMENT, "eb_model_open_memory: data is not aligned to 64 bytes");
    eb_model *model = NULL;
    eb_status status = new_model(host, "model in memory", &model, error);
    if (status)
        return status;
    model->base = data;
    model->size = size;
    status = check_model(model, error);
    if (status) {
        eb_model_close(model);
        return status;
    }
    *out = model;
    return EB_OK;
}

void eb_model_close(eb_model *model) {
    if (!model)
        return;
    const eb_host host = model->host;
    if (model->mapping)
        host.munmap(model->mapping, model->mapping_size);
    if (model->layers)
        host.free(model->layers);
    host.free(model);
}

const eb_model_info *eb_model_get_info(const eb_model *model) { return model ? &model->info : NULL; }

uint64_t eb_model_fingerprint(const eb_model *model) {
    static const char tags[][5] = {"CONF", "TENS", "DATA"};
    uint64_t sums[3][2] = {{0}};
    if (!model)
        return 0;
    for (size_t i = 0; i < 3; i++) {
        const eb_section *section = eb_find_section(model, tags[i]);
        sums[i][0] = section->crc;
        sums[i][1] = section->size;
    }
    return (uint64_t)eb_crc32(0, sums, sizeof sums) << 32 | sums[2][0];
}

eb_status eb_model_section(const eb_model *model, const char tag[4], const void **data, uint64_t *size) {
    if (!model || !tag || !data || !size)
        return EB_BAD_ARGUMENT;
    const eb_section *section = eb_find_section(model, tag);
    *data = section ? model->base + section->offset : NULL;
    *size = section ? section->size : 0;
    return EB_OK;
}
