/* Preloaded into Redis: its wall clock is ahead by the seconds in the file WALL_CLOCK, a long as
 * bytes, which may change at any time. libfaketime cannot be: its set-up allocates, Redis' allocator
 * asks for the time in its own set-up, and the two wait for each other. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long *ahead;

__attribute__((constructor)) static void set_up(void) {
  int file = open(getenv("WALL_CLOCK"), O_RDONLY);
  if (file < 0) abort();
  ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  if (ahead == MAP_FAILED) abort();
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now) != 0;
  if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += *ahead;
  return failed ? -1 : 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *kept) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (kept) *kept = now.tv_sec;
  return now.tv_sec;
}
