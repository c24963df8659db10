/* status.c - error texts without a libc, and the checks of the host table. */
#include "status.h"
#include "mem.h"

#include <stdarg.h>

#define EB_STRING_(x) #x
#define EB_STRING(x) EB_STRING_(x)
#ifndef EB_VERSION
#define EB_VERSION 0.1.0
#endif

uint32_t eb_abi_version(void) { return EB_ABI_VERSION; }

const char *eb_version(void) { return EB_STRING(EB_VERSION); }

const char *eb_status_name(eb_status status) {
    switch (status) {
    case EB_OK:
        return "ok";
    case EB_BAD_ARGUMENT:
        return "bad argument";
    case EB_IO:
        return "input/output error";
    case EB_BAD_FORMAT:
        return "bad format";
    case EB_UNSUPPORTED:
        return "unsupported";
    case EB_NO_MEMORY:
        return "out of memory";
    case EB_LIMIT:
        return "limit passed";
    case EB_CANCELLED:
        return "cancelled";
    case EB_MISMATCH:
        return "golden probe mismatch";
    }
    return "unknown status";
}

typedef struct writer {
    char *text;
    size_t size, capacity; /* capacity leaves room for the final zero */
} writer;

static void put_char(writer *out, char c) {
    if (out->size < out->capacity)
        out->text[out->size++] = c;
}

static void put_string(writer *out, const char *text) {
    if (!text)
        text = "(null)";
    for (; *text; text++)
        put_char(out, (unsigned char)*text < 32 || *text == 127 ? '?' : *text);
}

static void put_number(writer *out, unsigned long long value, unsigned base) {
    char digits[20];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (n)
        put_char(out, digits[--n]);
}

void eb_fail(eb_error *error, const char *format, ...) {
    if (!error)
        return;
    writer out = {error->text, 0, sizeof error->text - 1};
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            put_char(&out, *format);
            continue;
        }
        format++;
        if (*format == 's') {
            put_string(&out, va_arg(arguments, const char *));
        } else if (*format == 'd') {
            const int value = va_arg(arguments, int);
            if (value < 0)
                put_char(&out, '-');
            put_number(&out, value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value, 10);
        } else if (*format == 'u') {
            put_number(&out, va_arg(arguments, unsigned), 10);
        } else if (*format == 'x') {
            put_number(&out, va_arg(arguments, unsigned), 16);
        } else if (format[0] == 'l' && format[1] == 'l' && format[2] == 'u') {
            put_number(&out, va_arg(arguments, unsigned long long), 10);
            format += 2;
        } else if (*format == 'c') {
            put_char(&out, (char)va_arg(arguments, int));
        } else if (*format == '%') {
            put_char(&out, '%');
        } else {
            break; /* a directive that this function does not know: what follows can't be trusted */
        }
    }
    va_end(arguments);
    out.text[out.size] = 0;
}

eb_status eb_host_check(const eb_host *host, eb_error *error) {
    if (!host) {
        eb_fail(error, "the host table is missing");
        return EB_BAD_ARGUMENT;
    }
    if (host->size != sizeof(eb_host)) {
        eb_fail(error,
                "the host table has %u bytes, this library wants %u: caller and library are of different versions",
                (unsigned)host->size, (unsigned)sizeof(eb_host));
        return EB_BAD_ARGUMENT;
    }
    if (!host->malloc || !host->free || !host->open || !host->lseek || !host->mmap || !host->munmap || !host->close ||
        !host->pthread_create || !host->pthread_join || !host->pthread_mutex_init || !host->pthread_mutex_lock ||
        !host->pthread_mutex_unlock || !host->pthread_mutex_destroy || !host->pthread_cond_init ||
        !host->pthread_cond_wait || !host->pthread_cond_broadcast || !host->pthread_cond_destroy ||
        !host->sched_yield || !host->clock_gettime) {
        eb_fail(error, "the host table lacks a function");
        return EB_BAD_ARGUMENT;
    }
    return EB_OK;
}

void *eb_alloc(const eb_host *host, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size)
        return NULL;
    const size_t bytes = count * size;
    return host->malloc(bytes ? bytes : 1);
}
