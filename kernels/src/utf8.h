/* utf8.h - characters in bytes that may be anything. */
#ifndef EB_UTF8_H
#define EB_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Looks at the character at the front of text [size], size > 0. The result is
 *   > 0  the length of a whole character in valid UTF-8, with *code_point set;
 *   0    the text ends within a character that is valid so far;
 *   < 0  minus the length of the longest part that could have begun a character (at least 1): what one U+FFFD stands
 * for (Unicode Standard, section 3.9, "substitution of maximal subparts"). */
int eb_utf8_next(const uint8_t *text, size_t size, uint32_t *code_point);

#endif
