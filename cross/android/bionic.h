/* bionic.h - what edgebit-run uses of Android's libc on 64-bit Arm, from API level 24 on. It stands in for every standard
 * header (bionic.cmake), so a program that needs more does not compile, and nothing of this machine's libc gets in.
 * The layouts are those of the kernel (asm-generic) and of Android's stable 64-bit ABI. */
#ifndef EB_BIONIC_H
#define EB_BIONIC_H

#if !defined(__aarch64__) || !defined(__linux__)
#error "bionic.h describes 64-bit Arm only"
#endif

/* ---- the compiler's own: stddef.h, stdint.h, limits.h, stdarg.h ---- */

typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)

typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __INTPTR_TYPE__ intptr_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#define INT32_MAX __INT32_MAX__
#define INT64_MAX __INT64_MAX__
#define UINT32_MAX __UINT32_MAX__
#define UINT64_MAX __UINT64_MAX__
#define SIZE_MAX __SIZE_MAX__

#define INT_MAX __INT_MAX__
#define LONG_MAX __LONG_MAX__
#define ULONG_MAX (2ul * __LONG_MAX__ + 1)

typedef __builtin_va_list va_list;
#define va_start(list, last) __builtin_va_start(list, last)
#define va_end(list) __builtin_va_end(list)
#define va_arg(list, type) __builtin_va_arg(list, type)

/* ---- types ---- */

typedef long off_t, ssize_t, time_t;
typedef struct FILE FILE;
typedef int sig_atomic_t;

struct timespec {
    time_t tv_sec;
    long tv_nsec;
};

struct timeval {
    time_t tv_sec;
    long tv_usec;
};

typedef long pthread_t;
typedef struct {
    int32_t words[10];
} pthread_mutex_t;
typedef struct {
    int32_t words[12];
} pthread_cond_t;

struct stat {
    unsigned long st_dev, st_ino;
    unsigned st_mode, st_nlink, st_uid, st_gid;
    unsigned long st_rdev, pad1;
    off_t st_size;
    int st_blksize, pad2;
    long st_blocks;
    struct timespec st_atim, st_mtim, st_ctim;
    unsigned unused[2];
};

struct rusage {
    struct timeval ru_utime, ru_stime;
    long ru_maxrss, others[13];
};

/* ---- constants ---- */

#define O_RDONLY 0
#define O_CLOEXEC 02000000
#define SEEK_SET 0
#define SEEK_CUR 1
#define SEEK_END 2
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define CLOCK_MONOTONIC 1
#define RUSAGE_SELF 0
#define AT_HWCAP 16
#define AT_HWCAP2 26
#define SIGINT 2
#define SIGTERM 15
#define _SC_NPROCESSORS_ONLN 0x61
#define S_ISDIR(mode) (((mode)&0170000) == 0040000)

/* ---- functions ---- */

extern FILE *stdin, *stdout, *stderr;
int *__errno(void);
#define errno (*__errno())

int fclose(FILE *);
int fflush(FILE *);
FILE *fopen(const char *, const char *);
int fprintf(FILE *, const char *, ...) __attribute__((format(printf, 2, 3)));
int fputc(int, FILE *);
int fputs(const char *, FILE *);
size_t fread(void *, size_t, size_t, FILE *);
int fseeko(FILE *, off_t, int);
size_t fwrite(const void *, size_t, size_t, FILE *);
int printf(const char *, ...) __attribute__((format(printf, 1, 2)));
int putchar(int);
int snprintf(char *, size_t, const char *, ...) __attribute__((format(printf, 3, 4)));
int vfprintf(FILE *, const char *, va_list) __attribute__((format(printf, 2, 0)));

void exit(int) __attribute__((noreturn));
void free(void *);
char *getenv(const char *);
void *malloc(size_t);
void *realloc(void *, size_t);
double strtod(const char *, char **);
long strtol(const char *, char **, int);
unsigned long strtoul(const char *, char **, int);

int memcmp(const void *, const void *, size_t);
void *memmove(void *, const void *, size_t);
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
int strcmp(const char *, const char *);
char *strdup(const char *);
char *strerror(int);
size_t strlen(const char *);
int strncmp(const char *, const char *, size_t);

int clock_gettime(int, struct timespec *);
int close(int);
unsigned long getauxval(unsigned long);
int getrusage(int, struct rusage *);
off_t lseek(int, off_t, int);
void *mmap(void *, size_t, int, int, int, off_t);
int munmap(void *, size_t);
int open(const char *, int, ...);
int sched_yield(void);
void (*signal(int, void (*)(int)))(int);
int stat(const char *, struct stat *);
long sysconf(int);

int pthread_cond_broadcast(pthread_cond_t *);
int pthread_cond_destroy(pthread_cond_t *);
int pthread_cond_init(pthread_cond_t *, const long *);
int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *);
int pthread_create(pthread_t *, const void *, void *(*)(void *), void *);
int pthread_join(pthread_t, void **);
int pthread_mutex_destroy(pthread_mutex_t *);
int pthread_mutex_init(pthread_mutex_t *, const long *);
int pthread_mutex_lock(pthread_mutex_t *);
int pthread_mutex_unlock(pthread_mutex_t *);

#endif
