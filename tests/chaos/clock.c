/* A wall clock that another process moves: preloaded into a worker, and with it into its trainers.

   CHAOS_CLOCK names a file with one 64-bit integer, the seconds to add. Monotonic clocks are left alone. Waits that end
   at a time of the wall clock are handed on in true time, as a kernel whose clock was set would see them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define REAL(function) \
    ({ static __typeof__(&function) known; if (!known) known = dlsym(RTLD_NEXT, #function); known; })
/* Times of a monotonic clock are below, times of day above. */
#define FIRST_TIME_OF_DAY 1000000000

static const volatile long long *moved_s;
static const long long unmoved = 0;

static long long offset_s(void) {
    if (!moved_s) {
        const char *path = getenv("CHAOS_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof unmoved, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        moved_s = page == MAP_FAILED ? &unmoved : page;
    }
    return *moved_s;
}

static struct timespec true_time(const struct timespec *end) {
    struct timespec moved = *end;
    if (moved.tv_sec > FIRST_TIME_OF_DAY) moved.tv_sec -= offset_s();
    return moved;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = REAL(clock_gettime)(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset_s();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = REAL(gettimeofday)(now, zone);
    if (!failed) now->tv_sec += offset_s();
    return failed;
}

time_t time(time_t *out) {
    time_t now = REAL(time)(NULL) + offset_s();
    if (out) *out = now;
    return now;
}

int timespec_get(struct timespec *now, int base) {
    int known = REAL(timespec_get)(now, base);
    if (known == TIME_UTC) now->tv_sec += offset_s();
    return known;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict end) {
    struct timespec moved = true_time(end);
    return REAL(pthread_cond_timedwait)(cond, mutex, &moved);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict end) {
    struct timespec moved = true_time(end);
    return REAL(sem_timedwait)(semaphore, &moved);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict end) {
    struct timespec moved = true_time(end);
    return REAL(pthread_mutex_timedlock)(mutex, &moved);
}

int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict end) {
    struct timespec moved = true_time(end);
    return REAL(cnd_timedwait)(cond, mutex, &moved);
}
