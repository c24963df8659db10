/* prompt_program.c - see prompt_program.h. */
#include "prompt_program.h"

#include <string.h>

/* Texts of a program, and the flags that only this file knows. */
enum {
    SYSTEM_PREFIX,
    SYSTEM_SUFFIX,
    USER_PREFIX,
    USER_SUFFIX,
    ASSISTANT_PREFIX,
    ASSISTANT_SUFFIX,
    GENERATION,
    DEFAULT_SYSTEM,
    THOUGHT_END
};
enum {
    PROMPT_STRIPS_USER = 2,
    PROMPT_STRIPS_SYSTEM = 64,
    PROMPT_STRIPS_TURN = 256,
    PROMPT_SYSTEM_IN_USER = 512 | 1024,
    KNOWN_FLAGS_1 = 63,
    KNOWN_FLAGS_2 = 8191
};

/* ---- texts ---- */

void add_text(prompt *out, const char *text, size_t size) {
    memcpy(out->text + out->size, text, size);
    out->size += size;
}

void add_template(prompt *out, const char *text, size_t size) {
    if (!size)
        return;
    if (out->n_ranges && out->range[out->n_ranges - 1].end == out->size)
        out->range[out->n_ranges - 1].end += size;
    else
        out->range[out->n_ranges++] = (eb_range){out->size, out->size + size};
    add_text(out, text, size);
}

/* The number of bytes of the white space that `text` begins with, as Python's str.isspace() sees it; 0: none. */
static size_t space_at(const unsigned char *text, size_t size) {
    if (size >= 1 && ((text[0] >= 9 && text[0] <= 13) || (text[0] >= 28 && text[0] <= 32)))
        return 1;
    if (size >= 2 && text[0] == 0xc2 && (text[1] == 0x85 || text[1] == 0xa0))
        return 2;
    if (size >= 3 && ((text[0] == 0xe1 && text[1] == 0x9a && text[2] == 0x80) ||
                      (text[0] == 0xe2 && text[1] == 0x80 &&
                       (text[2] <= 0x8a || text[2] == 0xa8 || text[2] == 0xa9 || text[2] == 0xaf)) ||
                      (text[0] == 0xe2 && text[1] == 0x81 && text[2] == 0x9f) ||
                      (text[0] == 0xe3 && text[1] == 0x80 && text[2] == 0x80)))
        return 3;
    return 0;
}

/* The number of bytes of white space that `text` ends with. */
static size_t space_before(const char *text, size_t size) {
    for (size_t n = 1; n <= 3 && n <= size; n++)
        if (space_at((const unsigned char *)text + size - n, n) == n)
            return n;
    return 0;
}

static void add_content(prompt *out, const char *text, int strip) {
    size_t size = strlen(text);
    if (strip) {
        for (size_t n; (n = space_at((const unsigned char *)text, size)) > 0; size -= n)
            text += n;
        for (size_t n; (n = space_before(text, size)) > 0;)
            size -= n;
    }
    add_text(out, text, size);
}

/* Where byte `at` of a text is once `gone` bytes have been taken out at `begin` and `size` are left. */
static size_t place_after(size_t at, size_t begin, size_t gone, size_t size) {
    const size_t place = at <= begin ? at : at - begin > gone ? at - gone : begin;
    return place < size ? place : size;
}

/* Takes the white space off around what stands from byte `begin` on. */
static void strip_from(prompt *out, size_t begin) {
    for (size_t n; (n = space_before(out->text + begin, out->size - begin)) > 0;)
        out->size -= n;
    size_t gone = 0;
    for (size_t n; (n = space_at((const unsigned char *)out->text + begin + gone, out->size - begin - gone)) > 0;)
        gone += n;
    memmove(out->text + begin, out->text + begin + gone, out->size - begin - gone);
    out->size -= gone;
    for (size_t i = 0; i < out->n_ranges; i++) {
        out->range[i].begin = place_after(out->range[i].begin, begin, gone, out->size);
        out->range[i].end = place_after(out->range[i].end, begin, gone, out->size);
    }
}

/* ---- programs ---- */

const char *read_prompt_program(const void *section, uint64_t size, prompt_program *out) {
    const char *at = section;
    uint32_t version = 0;
    *out = (prompt_program){0};
    if (size >= 8) {
        memcpy(&version, at, 4);
        memcpy(&out->flags, at + 4, 4);
    }
    if (version != 1 && version != 2)
        return "is damaged or of another version";
    if (out->flags & ~(version == 1 ? KNOWN_FLAGS_1 : KNOWN_FLAGS_2))
        return "has flags that this program does not know";
    if (version == 1 && out->flags & PROMPT_STRIPS_USER)
        out->flags |= PROMPT_STRIPS_SYSTEM;
    at += 8, size -= 8;
    for (int i = 0; i < (version == 1 ? DEFAULT_SYSTEM : PROMPT_TEXTS); i++) {
        if (size < 4)
            return "is cut short";
        memcpy(&out->size[i], at, 4);
        if (out->size[i] > size - 4)
            return "has a text that goes past its end";
        out->text[i] = at + 4;
        at += 4 + out->size[i], size -= 4 + out->size[i];
    }
    return size ? "has more than its texts" : NULL;
}

size_t prompt_room(const prompt_program *program, const char *system, const char *content) {
    size_t room = strlen(content) + (system ? strlen(system) : 0);
    for (int i = 0; i < PROMPT_TEXTS; i++)
        room += program->size[i];
    return room;
}

static void add_part(prompt *out, const prompt_program *program, int part) {
    add_template(out, program->text[part], program->size[part]);
}

static void add_system(prompt *out, const prompt_program *program, const char *system) {
    if (!system) {
        add_part(out, program, DEFAULT_SYSTEM);
        return;
    }
    add_part(out, program, SYSTEM_PREFIX);
    add_content(out, system, program->flags & PROMPT_STRIPS_SYSTEM);
    add_part(out, program, SYSTEM_SUFFIX);
}

void write_prompt(prompt *out, const prompt_program *program, const char *system, const char *content) {
    const int in_turn = (program->flags & PROMPT_SYSTEM_IN_USER) != 0;
    const int strips_turn = (program->flags & PROMPT_STRIPS_TURN) != 0;
    if (!in_turn)
        add_system(out, program, system);
    add_part(out, program, USER_PREFIX);
    const size_t turn = out->size;
    if (in_turn)
        add_system(out, program, system);
    add_content(out, content, !strips_turn && program->flags & PROMPT_STRIPS_USER);
    if (strips_turn)
        strip_from(out, turn);
    add_part(out, program, USER_SUFFIX);
    add_part(out, program, GENERATION);
}
