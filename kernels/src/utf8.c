/* utf8.c - see utf8.h. */
#include "utf8.h"

int eb_utf8_next(const uint8_t *text, size_t size, uint32_t *code_point) {
    const uint8_t first = text[0];
    if (first < 0x80) {
        *code_point = first;
        return 1;
    }
    if (first < 0xC2 || first > 0xF4)
        return -1;
    const int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    /* The second byte's range keeps out overlong forms, surrogates and what is above U+10FFFF. */
    uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    uint32_t value = first & (0x7F >> length);
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= size)
            return 0;
        if (text[i] < low || text[i] > high)
            return -i;
        value = value << 6 | (text[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *code_point = value;
    return length;
}
