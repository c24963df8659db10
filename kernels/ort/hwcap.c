/* hwcap.c - the CPU's features on AArch64 Linux, for a library that has no host table to ask.
 *
 * getauxval() is libc's, and a weak import of it stays unbound on Android, where a library sees only those that it names.
 * So the kernel is asked by three system calls that all of Linux has: PR_GET_AUXV (Linux 6.4) needs no file at all;
 * /proc/self/auxv is not to be read by a process that may not be debugged, such as a released Android app; /proc/cpuinfo
 * is. Registers that tell of features (ID_AA64ISAR0_EL1) are not read: before Linux 4.11 that kills the process. */
#include "hwcap.h"

enum { AT_HWCAP = 16, AT_HWCAP2 = 26 };

static const unsigned long HWCAP_ASIMDDP = 1ul << 20, HWCAP2_I8MM = 1ul << 13;

eb_hwcap eb_hwcap_of_auxv(const unsigned long *words, size_t n) {
    eb_hwcap found = {0};
    for (size_t i = 0; i + 1 < n && words[i]; i += 2) {
        if (words[i] == AT_HWCAP)
            found.hwcap = words[i + 1];
        if (words[i] == AT_HWCAP2)
            found.hwcap2 = words[i + 1];
    }
    return found;
}

static int begins_with(const char *text, const char *end, const char *word) {
    while (*word && text < end && *text == *word)
        text++, word++;
    return !*word;
}

static int has_word(const char *line, const char *end, const char *word, size_t size) {
    for (const char *at = line; (size_t)(end - at) >= size; at++)
        if (begins_with(at, end, word) && (at == line || at[-1] == ' ' || at[-1] == '\t') &&
            (at + size == end || at[size] == ' '))
            return 1;
    return 0;
}

eb_hwcap eb_hwcap_of_cpuinfo(const char *text, size_t size) {
    eb_hwcap all = {HWCAP_ASIMDDP, HWCAP2_I8MM};
    int n_lines = 0;
    for (const char *line = text, *end = text + size; line < end;) {
        const char *stop = line;
        while (stop < end && *stop != '\n')
            stop++;
        if (begins_with(line, stop, "Features")) {
            all.hwcap = has_word(line, stop, "asimddp", 7) ? all.hwcap : 0;
            all.hwcap2 = has_word(line, stop, "i8mm", 4) ? all.hwcap2 : 0;
            n_lines++;
        }
        line = stop < end ? stop + 1 : end;
    }
    return n_lines ? all : (eb_hwcap){0};
}

#if defined(__aarch64__) && defined(__linux__)
enum { SYS_OPENAT = 56, SYS_CLOSE = 57, SYS_READ = 63, SYS_PRCTL = 167 };
enum { FROM_HERE = -100 /* AT_FDCWD */, READ_ONLY_CLOSED_ON_EXEC = 02000000, PR_GET_AUXV = 0x41555856 };

static long call(long number, long a, long b, long c, long d, long e) {
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x8 __asm__("x8") = number;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x8) : "memory");
    return x0;
}

/* Up to `size` bytes of a file; 0 where it cannot be read. */
static size_t read_file(const char *path, void *to, size_t size) {
    const long fd = call(SYS_OPENAT, FROM_HERE, (long)path, READ_ONLY_CLOSED_ON_EXEC, 0, 0);
    if (fd < 0)
        return 0;
    size_t have = 0;
    for (long n; have < size; have += (size_t)n)
        if ((n = call(SYS_READ, fd, (long)((char *)to + have), (long)(size - have), 0, 0)) <= 0)
            break;
    call(SYS_CLOSE, fd, 0, 0, 0, 0);
    return have;
}

eb_hwcap eb_hwcap_read(void) {
    unsigned long words[512];
    const long n = call(SYS_PRCTL, PR_GET_AUXV, (long)words, sizeof words, 0, 0);
    size_t bytes = n > 0 ? (size_t)n : read_file("/proc/self/auxv", words, sizeof words);
    if (bytes > sizeof words)
        bytes = sizeof words;
    const eb_hwcap found = eb_hwcap_of_auxv(words, bytes / sizeof *words);
    if (found.hwcap)
        return found;
    char text[8192];
    const size_t size = read_file("/proc/cpuinfo", text, sizeof text);
    return eb_hwcap_of_cpuinfo(text, size);
}
#else
eb_hwcap eb_hwcap_read(void) { return (eb_hwcap){0}; }
#endif
