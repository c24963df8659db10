/* fuzz_tokenizer.c - libFuzzer target for the tokenizer: hostile sections, and any text with a valid one.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Ikernels/include -Ikernels/src \
 *       tests/kernels/fuzz_tokenizer.c \
 *       kernels/src/{tokenizer,tokenizer_section,pre_tokenizer,unicode_nfc,merging,utf8,text,status,mem}.c
 *   ./fuzz_tokenizer CORPUS                                  the input is a section, then a text
 *   EB_FUZZ_SECTION=tiny.tokn ./fuzz_tokenizer CORPUS        the input is text for that section
 *
 * An input is: one byte of options, two of text size (little-endian), the text, and the section. Whatever the section
 * holds, opening it must fail cleanly or give a tokenizer whose ids stand for the bytes of the text (but for spaces, where
 * those are put before text, and for text that is not in normal form), and a text stream whose output is valid UTF-8 that
 * does not depend on how often it is asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgebit.h"
#include "fuzz_host.h"
#include "tokenizer.h"
#include "unicode_nfc.h"
#include "utf8.h"

/* Ids in a buffer of exactly their number, so that a write beyond it is seen. */
static int32_t *encode(const eb_tokenizer *tokenizer, const char *text, size_t size, int options, size_t *count) {
    const eb_range half = {size / 4, size / 2};
    const int ranges = options & 2;
    eb_status status = ranges ? eb_tokenize_ranges(tokenizer, text, size, &half, 1, NULL, 0, count)
                              : eb_tokenize(tokenizer, text, size, options & 1, NULL, 0, count);
    require(status == (*count ? EB_LIMIT : EB_OK), "the count of ids fails");
    require(*count <= 3 * size, "more ids than bytes"); /* NFC and spaces that are put first may add some */
    int32_t *ids = malloc(*count * sizeof *ids + 1);
    size_t again = 0;
    status = ranges ? eb_tokenize_ranges(tokenizer, text, size, &half, 1, ids, *count, &again)
                    : eb_tokenize(tokenizer, text, size, options & 1, ids, *count, &again);
    require(status == EB_OK && again == *count, "the same text gives another number of ids");
    return ids;
}

/* Whether spaces may be put first, U+2581 is a space, text changes or bytes are left out. */
static int is_exact(const eb_tokenizer *tokenizer, const char *text, size_t size) {
    for (int byte = 0; byte < 256; byte++)
        if (tokenizer->byte_ids[byte] == EB_NO_ID)
            return 0;
    return tokenizer->normalizer == EB_NORMALIZER_NONE || eb_is_nfc((const uint8_t *)text, size);
}

/* The next byte that is neither a space nor one of U+2581's. */
static size_t skip_spaces(const char *text, size_t at, size_t size) {
    while (at < size && memchr(" \xE2\x96\x81", text[at], 4))
        at++;
    return at;
}

static void check_bytes(const eb_tokenizer *tokenizer, const char *text, size_t size, const int32_t *ids,
                        size_t count) {
    const int spaces_differ = tokenizer->kind == EB_KIND_BYTE_FALLBACK;
    if (!is_exact(tokenizer, text, size))
        return;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t token_size = 0;
        const char *bytes = eb_token_bytes(tokenizer, ids[i], &token_size, NULL);
        require(bytes != NULL, "an id is outside the vocabulary");
        for (size_t k = 0; k < token_size; k++) {
            if (spaces_differ) {
                at = skip_spaces(text, at, size);
                if (skip_spaces(bytes, k, k + 1) > k)
                    continue;
            }
            require(at < size && bytes[k] == text[at], "ids give other bytes");
            at++;
        }
    }
    require((spaces_differ ? skip_spaces(text, at, size) : at) == size, "ids give fewer bytes");
}

static void check_utf8(const char *piece, size_t size) {
    for (size_t at = 0; at < size;) {
        uint32_t code_point;
        const int length = eb_utf8_next((const uint8_t *)piece + at, size - at, &code_point);
        require(length > 0, "a text stream shows half a character");
        at += (size_t)length;
    }
}

/* Stop strings are cut from the text itself, so that they do occur. */
static void check_stream(const eb_tokenizer *tokenizer, const char *text, size_t size, int options, const int32_t *ids,
                         size_t count) {
    const char *stops[2] = {text + size / 3, text + size / 2};
    const size_t sizes[2] = {1 + size / 5 % 6, 1 + size % 4};
    const size_t n_stops = size < 16 ? 0 : (size_t)(options >> 2 & 3) % 3;
    eb_text *stream = NULL;
    require(eb_text_open(tokenizer, stops, sizes, n_stops, &stream, NULL) == EB_OK, "a text stream does not open");
    size_t shown = 0, given = 0;
    const char *piece;
    size_t piece_size;
    for (size_t i = 0; i < count; i++) {
        int stopped = 0;
        size_t token_size = 0;
        eb_token_bytes(tokenizer, ids[i], &token_size, NULL);
        given += token_size;
        require(eb_text_push(stream, ids[i], &piece, &piece_size, &stopped) == EB_OK, "a token is refused");
        check_utf8(piece, piece_size);
        shown += piece_size;
    }
    require(eb_text_finish(stream, &piece, &piece_size) == EB_OK, "a text stream does not finish");
    check_utf8(piece, piece_size);
    shown += piece_size;
    require(shown <= 3 * given, "a text stream shows more than it was given");
    eb_text_close(stream);
}

static uint8_t *read_section(size_t *size) {
    const char *path = getenv("EB_FUZZ_SECTION");
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file) {
        require(!path, "EB_FUZZ_SECTION cannot be read");
        return NULL;
    }
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *section = malloc(*size);
    require(fread(section, 1, *size, file) == *size, "EB_FUZZ_SECTION cannot be read");
    fclose(file);
    return section;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t *given;
    static size_t given_size;
    static int begun;
    if (!begun) {
        given = read_section(&given_size);
        begun = 1;
    }
    if (size < 3)
        return 0;
    const int options = data[0];
    const size_t left = size - 3, wanted = given ? left : (size_t)data[1] | (size_t)data[2] << 8;
    const size_t text_size = wanted < left ? wanted : left;
    const size_t section_size = given ? given_size : left - text_size;
    char *text = malloc(text_size + 1); /* copies of their exact sizes, for the address sanitizer */
    uint8_t *section = malloc(section_size + 1);
    memcpy(text, data + 3, text_size);
    memcpy(section, given ? given : data + 3 + text_size, section_size);

    const eb_host host = make_host();
    eb_tokenizer *tokenizer = NULL;
    eb_error error;
    const eb_status status = eb_tokenizer_open(&host, section, section_size, &tokenizer, &error);
    require((status == EB_OK) == (tokenizer != NULL), "a refused section gives a tokenizer");
    require(!given || status == EB_OK, "the valid section is refused");
    if (tokenizer) {
        size_t count = 0;
        int32_t *ids = encode(tokenizer, text, text_size, options, &count);
        check_bytes(tokenizer, text, text_size, ids, count);
        check_stream(tokenizer, text, text_size, options, ids, count);
        free(ids);
        eb_tokenizer_close(tokenizer);
    }
    free(section);
    free(text);
    return 0;
}
