/* pre_tokenizer.c - the pre-tokenizers of Hugging Face `tokenizers`, their regular expressions written out by hand.
 *
 * Each byte that is not part of a whole valid character counts as one symbol that is neither letter nor number nor white
 * space; no replacement character comes into it. */
#include "pre_tokenizer.h"

#include "unicode_classes.inc"
#include "utf8.h"

enum { CLASS_OTHER = 0, CLASS_LETTER = 1, CLASS_NUMBER = 2, CLASS_SPACE = 3 };

typedef struct symbol {
    uint32_t code_point, size; /* size 0: the end of the text */
    int class;
} symbol;

static inline symbol symbol_at(const uint8_t *text, size_t at, size_t size) {
    if (at >= size)
        return (symbol){0, 0, -1};
    uint32_t c = 0;
    const int length = eb_utf8_next(text + at, size - at, &c);
    if (length <= 0)
        return (symbol){UINT32_MAX, 1, CLASS_OTHER};
    const uint8_t four = class_blocks[class_block_of[c >> 8] * 64u + ((c & 255) >> 2)];
    return (symbol){c, (uint32_t)length, four >> (2 * (c & 3)) & 3};
}

static inline int is_newline(symbol s) { return s.code_point == '\r' || s.code_point == '\n'; }

/* 's|'t|'re|'ve|'m|'ll|'d at text[at], an apostrophe: the length, or 0. With `fold` in upper case too: besides ASCII
 * only U+017F folds into it. */
static size_t contraction(const uint8_t *text, size_t at, size_t size, int fold) {
    const uint8_t lower = fold ? 0x20 : 0;
    const uint8_t first = at + 1 < size ? text[at + 1] | lower : 0;
    const uint8_t second = at + 2 < size ? text[at + 2] | lower : 0;
    if (at + 1 < size && text[at + 1] < 0x80 && (first == 's' || first == 't' || first == 'm' || first == 'd'))
        return 2;
    if (at + 2 >= size)
        return 0;
    if (fold && text[at + 1] == 0xC5 && text[at + 2] == 0xBF) /* U+017F, the long s */
        return 3;
    if (text[at + 1] >= 0x80 || text[at + 2] >= 0x80)
        return 0;
    return ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')) ? 3
                                                                                                                   : 0;
}

static size_t skip_class(const uint8_t *text, size_t at, size_t size, int class) {
    symbol s;
    while ((s = symbol_at(text, at, size)).class == class)
        at += s.size;
    return at;
}

/* The end of the piece that begins at `at`: the first alternative that matches there, of
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N}{1,digits} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+
 * | \s+(?!\S) | \s+ */
static size_t llama3_end(const uint8_t *text, size_t at, size_t size, int digits) {
    const symbol first = symbol_at(text, at, size);
    if (first.code_point == '\'') {
        const size_t length = contraction(text, at, size, 1);
        if (length)
            return at + length;
    }
    if (first.class == CLASS_LETTER)
        return skip_class(text, at + first.size, size, CLASS_LETTER);
    if (first.class == CLASS_NUMBER) {
        size_t end = at + first.size;
        for (int more = 1; more < digits; more++) {
            const symbol s = symbol_at(text, end, size);
            if (s.class != CLASS_NUMBER)
                break;
            end += s.size;
        }
        return end;
    }
    const symbol second = symbol_at(text, at + first.size, size);
    if (second.class == CLASS_LETTER && !is_newline(first))
        return skip_class(text, at + first.size, size, CLASS_LETTER);
    if (first.class == CLASS_OTHER || (first.code_point == ' ' && second.class == CLASS_OTHER)) {
        size_t end = skip_class(text, at + first.size, size, CLASS_OTHER);
        while (end < size && (text[end] == '\r' || text[end] == '\n'))
            end++;
        return end;
    }
    /* White space: up to its last line break; else all of it at the end of the text; else all but its last character,
     * which goes with what follows; or that last character alone. */
    size_t end = at, last = at, after_newline = at;
    for (symbol s = first; s.class == CLASS_SPACE; s = symbol_at(text, end, size)) {
        last = end;
        end += s.size;
        if (is_newline(s))
            after_newline = end;
    }
    if (after_newline > at)
        return after_newline;
    return end == size || last == at ? end : last;
}

/* The first that matches, of 's|'t|'re|'ve|'m|'ll|'d | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+ */
static size_t gpt2_end(const uint8_t *text, size_t at, size_t size) {
    const symbol first = symbol_at(text, at, size);
    if (first.code_point == '\'') {
        const size_t length = contraction(text, at, size, 0);
        if (length)
            return at + length;
    }
    if (first.class != CLASS_SPACE)
        return skip_class(text, at + first.size, size, first.class);
    const symbol second = symbol_at(text, at + first.size, size);
    if (first.code_point == ' ' && second.size && second.class != CLASS_SPACE)
        return skip_class(text, at + first.size, size, second.class);
    size_t end = at, last = at;
    for (symbol s = first; s.class == CLASS_SPACE; s = symbol_at(text, end, size)) {
        last = end;
        end += s.size;
    }
    return end == size || last == at ? end : last;
}

static int is_punctuation(symbol s) {
    size_t low = 0, high = sizeof punctuation / sizeof *punctuation;
    while (low < high) { /* the first range that begins behind it */
        const size_t middle = low + (high - low) / 2;
        if (punctuation[middle] >> 8 <= s.code_point)
            low = middle + 1;
        else
            high = middle;
    }
    return s.code_point <= 0x10FFFF && low && s.code_point - (punctuation[low - 1] >> 8) < (punctuation[low - 1] & 255);
}

/* A run of punctuation, or of anything else. */
static size_t punctuation_end(const uint8_t *text, size_t at, size_t size) {
    const int wanted = is_punctuation(symbol_at(text, at, size));
    symbol s;
    while ((s = symbol_at(text, at, size)).size && is_punctuation(s) == wanted)
        at += s.size;
    return at;
}

/* Whether a byte's stand-in in byte-level vocabularies is a number: 0 to 9, and the characters 2, 3, 1 (superscript),
 * 1/4, 1/2 and 3/4 of Latin-1. */
static int is_numeric(uint8_t byte) {
    return (byte >= '0' && byte <= '9') || byte == 0xB2 || byte == 0xB3 || byte == 0xB9 ||
           (byte >= 0xBC && byte <= 0xBE);
}

static int is_three_digits(const uint8_t *text, size_t at, size_t size) {
    for (size_t i = at; i < at + 3; i++)
        if (i >= size || text[i] < '0' || text[i] > '9')
            return 0;
    return 1;
}

/* Of the bytes' stand-ins, runs of numbers and of others; and in those of numbers, [0-9][0-9][0-9] by itself. */
static size_t digits_end(const uint8_t *text, size_t at, size_t size) {
    const int numeric = is_numeric(text[at]);
    if (numeric && is_three_digits(text, at, size))
        return at + 3;
    do
        at++;
    while (at < size && is_numeric(text[at]) == numeric && !(numeric && is_three_digits(text, at, size)));
    return at;
}

/* Punctuation, then GPT-2's, then digits, each inside what the step before has cut. */
static size_t falcon_end(eb_pieces *p) {
    if (p->at == p->run_end)
        p->run_end = punctuation_end(p->text, p->at, p->size);
    if (p->at == p->word_end)
        p->word_end = gpt2_end(p->text, p->at, p->run_end);
    return digits_end(p->text, p->at, p->word_end);
}

static size_t piece_end(eb_pieces *p) {
    switch (p->pre_tokenizer) {
    case EB_PRE_TOKENIZER_LLAMA3:
        return llama3_end(p->text, p->at, p->size, 3);
    case EB_PRE_TOKENIZER_GPT2:
        return gpt2_end(p->text, p->at, p->size);
    case EB_PRE_TOKENIZER_QWEN2:
        return llama3_end(p->text, p->at, p->size, 1);
    case EB_PRE_TOKENIZER_FALCON:
        return falcon_end(p);
    default:
        return p->size;
    }
}

size_t eb_next_piece(eb_pieces *pieces) {
    const size_t begin = pieces->at;
    pieces->at = piece_end(pieces);
    return pieces->at - begin;
}
