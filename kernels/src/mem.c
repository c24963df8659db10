/* mem.c - the four functions a C compiler may call by itself, for a library that imports nothing.
 *
 * Weak and hidden: in a program that is linked with a libc statically they never clash with the libc's own. The copies
 * here are small ones (activations, error texts); weights are never copied. */
#include "mem.h"

/* Else gcc makes a loop that copies into a call of the function it stands in. clang has -fno-builtin for this, which
 * -ffreestanding implies. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#endif

#define EB_OWN __attribute__((weak, visibility("hidden")))

/* Whole words at any alignment; may_alias since the bytes are of any type. */
typedef struct __attribute__((packed, may_alias)) word {
    uint64_t value;
} word;

EB_OWN void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    unsigned char *t = to;
    const unsigned char *f = from;
    for (; size >= 8; size -= 8, t += 8, f += 8)
        ((word *)t)->value = ((const word *)f)->value;
    while (size--)
        *t++ = *f++;
    return to;
}

EB_OWN void *memmove(void *to, const void *from, size_t size) {
    unsigned char *t = to;
    const unsigned char *f = from;
    if ((uintptr_t)t - (uintptr_t)f >= size) { /* `to` does not begin inside [from, from + size) */
        for (; size >= 8 && (uintptr_t)t - (uintptr_t)f >= 8; size -= 8, t += 8, f += 8)
            ((word *)t)->value = ((const word *)f)->value;
        while (size--)
            *t++ = *f++;
    } else {
        while (size--)
            t[size] = f[size];
    }
    return to;
}

EB_OWN void *memset(void *to, int byte, size_t size) {
    unsigned char *t = to;
    const uint64_t words = UINT64_C(0x0101010101010101) * (unsigned char)byte;
    for (; size >= 8; size -= 8, t += 8)
        ((word *)t)->value = words;
    while (size--)
        *t++ = (unsigned char)byte;
    return to;
}

EB_OWN int memcmp(const void *a, const void *b, size_t size) {
    const unsigned char *x = a, *y = b;
    for (; size >= 8; size -= 8, x += 8, y += 8)
        if (((const word *)x)->value != ((const word *)y)->value)
            break;
    for (; size; size--, x++, y++)
        if (*x != *y)
            return *x < *y ? -1 : 1;
    return 0;
}
