/* unicode_nfc.c - text is decomposed, combining characters are put in order, and what composes is composed.
 *
 * A combining character is a point with its class above its code point; a byte that is not UTF-8 is a point above all
 * code points, which nothing composes with. */
#include "unicode_nfc.h"

#include "mem.h"
#include "status.h"
#include "unicode_nfc.inc"
#include "utf8.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

enum { POINTS_PER_BYTE = 2, BYTES_PER_BYTE = 3 }; /* at most; the tool that writes the tables checks it */
enum { CODE_POINT_BITS = 21, CODE_POINT_MASK = (1 << CODE_POINT_BITS) - 1, RAW_BYTE = 0x1FFF00, CLASS_SHIFT = 24 };
enum { HANGUL = 0xAC00, HANGUL_N = 11172, L = 0x1100, L_N = 19, V = 0x1161, V_N = 21, T = 0x11A7, T_N = 28 };

static uint32_t code_point_of(uint32_t point) { return point & CODE_POINT_MASK; }

static uint32_t class_of(uint32_t point) { return point >> CLASS_SHIFT; }

/* The last entry of `ranges` [n] that begins at c or before it, its first code point being above `shift` bits; or 0. */
static uint32_t find_range(const uint32_t *ranges, size_t n, int shift, uint32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (ranges[middle] >> shift <= c)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? ranges[low - 1] : 0;
}

int eb_is_nfc(const uint8_t *text, size_t size) {
    for (size_t at = 0; at < size;) {
        uint32_t c = 0;
        const int length = eb_utf8_next(text + at, size - at, &c);
        at += length > 0 ? (size_t)length : 1;
        if (length < 2 || c < 0x300)
            continue;
        const uint32_t range = find_range(nfc_suspects, COUNT(nfc_suspects), 11, c);
        if (c - (range >> 11) < (range & 0x7FF))
            return 0;
    }
    return 1;
}

static uint64_t find_pair(uint32_t c) {
    size_t low = 0, high = COUNT(nfc_pairs);
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (nfc_pairs[middle] >> 42 < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(nfc_pairs) && nfc_pairs[low] >> 42 == c ? nfc_pairs[low] : 0;
}

static uint32_t make_point(uint32_t c) {
    const uint32_t range = find_range(nfc_classes, COUNT(nfc_classes), 15, c);
    return c - (range >> 15) < (range >> 8 & 0x7F) ? c | (range & 0xFF) << CLASS_SHIFT : c;
}

/* Puts the points of c's decomposition; gives how many. */
static size_t decompose(uint32_t c, uint32_t *points) {
    if (c - HANGUL < HANGUL_N) {
        const uint32_t s = c - HANGUL, t = s % T_N;
        points[0] = L + s / (V_N * T_N);
        points[1] = V + s / T_N % V_N;
        if (t)
            points[2] = T + t;
        return t ? 3 : 2;
    }
    const uint64_t pair = c < 0xC0 ? 0 : find_pair(c);
    if (!pair) {
        points[0] = make_point(c);
        return 1;
    }
    const uint32_t second = (uint32_t)pair & CODE_POINT_MASK;
    const size_t n = decompose((uint32_t)(pair >> CODE_POINT_BITS) & CODE_POINT_MASK, points);
    return second ? n + decompose(second, points + n) : n;
}

static size_t decompose_text(const uint8_t *text, size_t size, uint32_t *points) {
    size_t n = 0;
    for (size_t at = 0; at < size;) {
        uint32_t c = 0;
        const int length = eb_utf8_next(text + at, size - at, &c);
        if (length > 0)
            n += decompose(c, points + n);
        else
            points[n++] = RAW_BYTE | text[at];
        at += length > 0 ? (size_t)length : 1;
    }
    return n;
}

/* Orders combining characters by class, those of one class as they stand: by counting, so that a long run costs no more
 * a character than a short one. `spare` has room for as many. */
static void order_run(uint32_t *points, size_t n, uint32_t *spare) {
    int in_order = 1;
    for (size_t i = 1; i < n; i++)
        in_order &= class_of(points[i - 1]) <= class_of(points[i]);
    if (in_order)
        return;
    size_t place[256] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++)
        place[class_of(points[i])]++;
    for (size_t class = 0; class < 256; class++) {
        const size_t count = place[class];
        place[class] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        spare[place[class_of(points[i])]++] = points[i];
    eb_memcpy(points, spare, n * sizeof *points);
}

static void order(uint32_t *points, size_t n, uint32_t *spare) {
    for (size_t begin = 0; begin < n;) {
        size_t end = begin;
        while (end < n && class_of(points[end]))
            end++;
        order_run(points + begin, end - begin, spare);
        begin = end + 1;
    }
}

/* What the two compose to, or 0. */
static uint32_t composed(uint32_t first, uint32_t second) {
    if (first - L < L_N && second - V < V_N)
        return HANGUL + ((first - L) * V_N + (second - V)) * T_N;
    if (first - HANGUL < HANGUL_N && (first - HANGUL) % T_N == 0 && second - T - 1 < T_N - 1)
        return first + (second - T);
    const uint64_t parts = (uint64_t)first << CODE_POINT_BITS | second;
    size_t low = 0, high = COUNT(nfc_compositions);
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const uint64_t pair = nfc_pairs[nfc_compositions[middle]];
        if ((pair & (((uint64_t)1 << 42) - 1)) < parts)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == COUNT(nfc_compositions))
        return 0;
    const uint64_t pair = nfc_pairs[nfc_compositions[low]];
    return (pair & (((uint64_t)1 << 42) - 1)) == parts ? (uint32_t)(pair >> 42) : 0;
}

/* In place; gives how many are left. */
static size_t compose(uint32_t *points, size_t n) {
    size_t kept = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        const uint32_t point = points[i], class = class_of(point);
        if (starter != SIZE_MAX && (kept == starter + 1 || class_of(points[kept - 1]) < class)) {
            const uint32_t whole = composed(code_point_of(points[starter]), code_point_of(point));
            if (whole) {
                points[starter] = whole;
                continue;
            }
        }
        if (!class)
            starter = kept;
        points[kept++] = point;
    }
    return kept;
}

static size_t put_utf8(uint32_t c, uint8_t *to) {
    if ((c & ~0xFFu) == RAW_BYTE || c < 0x80) {
        to[0] = (uint8_t)c;
        return 1;
    }
    const size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = size - 1; i; i--, c >>= 6)
        to[i] = (uint8_t)(0x80 | (c & 0x3F));
    to[0] = (uint8_t)(0xF00 >> size | c);
    return size;
}

eb_status eb_to_nfc(const eb_host *host, const uint8_t *text, size_t size, uint8_t **normal, size_t *normal_size) {
    uint32_t *points = eb_alloc(host, size, 2 * POINTS_PER_BYTE * sizeof *points);
    if (!points)
        return EB_NO_MEMORY;
    uint8_t *bytes = eb_alloc(host, size, BYTES_PER_BYTE);
    if (!bytes) {
        host->free(points);
        return EB_NO_MEMORY;
    }
    size_t n = decompose_text(text, size, points);
    order(points, n, points + POINTS_PER_BYTE * size);
    n = compose(points, n);
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        at += put_utf8(code_point_of(points[i]), bytes + at);
    host->free(points);
    *normal = bytes;
    *normal_size = at;
    return EB_OK;
}
