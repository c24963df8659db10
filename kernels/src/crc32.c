/* crc32.c - CRC-32 (polynomial 0xedb88320, reflected), eight bytes at a time.
 *
 * The tables are made anew by each call, on the stack: that costs a few microseconds, and the library keeps no state.
 */
#include "crc32.h"
#include "mem.h"

uint32_t eb_crc32(uint32_t crc, const void *data, size_t size) {
    uint32_t table[8][256];
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
        table[0][byte] = value;
    }
    for (int t = 1; t < 8; t++)
        for (uint32_t byte = 0; byte < 256; byte++)
            table[t][byte] = table[t - 1][byte] >> 8 ^ table[0][table[t - 1][byte] & 255];

    const unsigned char *from = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, from += 8) {
        const uint32_t a = eb_load_u32(from) ^ crc, b = eb_load_u32(from + 4);
        crc = table[7][a & 255] ^ table[6][a >> 8 & 255] ^ table[5][a >> 16 & 255] ^ table[4][a >> 24] ^
              table[3][b & 255] ^ table[2][b >> 8 & 255] ^ table[1][b >> 16 & 255] ^ table[0][b >> 24];
    }
    while (size--)
        crc = crc >> 8 ^ table[0][(crc ^ *from++) & 255];
    return ~crc;
}
