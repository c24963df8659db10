/* unicode_nfc.h - Unicode's normal form C (UAX 15), as Hugging Face `tokenizers` has it. */
#ifndef EB_UNICODE_NFC_H
#define EB_UNICODE_NFC_H

#include "edgebit.h"

/* Whether text [size] is certainly in normal form; 0 where it takes more to say. */
int eb_is_nfc(const uint8_t *text, size_t size);

/* The normal form of text [size], size > 0, in memory of the host that the caller frees. Bytes that are not UTF-8 stay as
 * they are. */
eb_status eb_to_nfc(const eb_host *host, const uint8_t *text, size_t size, uint8_t **normal, size_t *normal_size);

#endif
