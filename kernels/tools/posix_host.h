/* posix_host.h - the table of host functions (edgebit.h), filled with those of the libc that a program is built with.
 */
#ifndef EB_POSIX_HOST_H
#define EB_POSIX_HOST_H

#include "edgebit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif

/* A thread is one word, a mutex and a condition fit into 128 bytes, and a clock's time is two 64-bit numbers. */
_Static_assert(sizeof(pthread_t) == sizeof(uintptr_t), "pthread_t is not one word on this system");
_Static_assert(sizeof(pthread_mutex_t) <= 128 && sizeof(pthread_cond_t) <= 128, "mutex or condition is too large");
_Static_assert(sizeof(struct timespec) == 16, "struct timespec is not two 64-bit numbers on this system");

static int eb_posix_open(const char *path, int flags) { return open(path, flags | O_CLOEXEC); }
static int64_t eb_posix_lseek(int fd, int64_t offset, int whence) { return lseek(fd, (off_t)offset, whence); }
static void *eb_posix_mmap(void *addr, size_t size, int prot, int flags, int fd, int64_t offset) {
    return mmap(addr, size, prot, flags, fd, (off_t)offset);
}

/* `isa`: NULL or the name of an ISA level, which must live as long as what is opened with the table. */
static inline eb_host eb_posix_host(const char *isa) {
    eb_host host = {.size = sizeof host, .map_private = MAP_PRIVATE, .clock_monotonic = CLOCK_MONOTONIC, .isa = isa};
#if defined(__linux__) && defined(__aarch64__)
    host.hwcap = getauxval(AT_HWCAP);
    host.hwcap2 = getauxval(AT_HWCAP2);
#endif
    host.malloc = malloc;
    host.free = free;
    host.open = eb_posix_open;
    host.lseek = eb_posix_lseek;
    host.mmap = eb_posix_mmap;
    host.munmap = munmap;
    host.close = close;
    host.pthread_create = (int (*)(uintptr_t *, const void *, void *(*)(void *), void *))(void (*)(void))pthread_create;
    host.pthread_join = (int (*)(uintptr_t, void **))(void (*)(void))pthread_join;
    host.pthread_mutex_init = (int (*)(void *, const void *))(void (*)(void))pthread_mutex_init;
    host.pthread_mutex_lock = (int (*)(void *))(void (*)(void))pthread_mutex_lock;
    host.pthread_mutex_unlock = (int (*)(void *))(void (*)(void))pthread_mutex_unlock;
    host.pthread_mutex_destroy = (int (*)(void *))(void (*)(void))pthread_mutex_destroy;
    host.pthread_cond_init = (int (*)(void *, const void *))(void (*)(void))pthread_cond_init;
    host.pthread_cond_wait = (int (*)(void *, void *))(void (*)(void))pthread_cond_wait;
    host.pthread_cond_broadcast = (int (*)(void *))(void (*)(void))pthread_cond_broadcast;
    host.pthread_cond_destroy = (int (*)(void *))(void (*)(void))pthread_cond_destroy;
    host.sched_yield = sched_yield;
    host.clock_gettime = (int (*)(int, int64_t[2]))(void (*)(void))clock_gettime;
    return host;
}

#endif
