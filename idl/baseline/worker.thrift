/** Served by each worker (port 30002), called by center. Internal. */

/** A message that falls due soon. A hint: the store alone says what is to be called. */
struct Due {
  1: required string msg_id
  2: required i64 due_at
}

/** The address now belongs to another process: read the registry again. Do not repeat. */
exception WrongIncarnation {
  1: required string incarnation
}

/** What a worker has on its hands. Source of the load that center balances by. */
struct Load {
  /** Messages in memory that wait for their time: those of the near future. */
  1: required i64 held
  /** Messages being claimed, called or settled. */
  2: required i64 in_flight
  /** Share of one core that the process used of late: 1.0 is all of it. */
  3: required double cpu
  4: required i64 memory_bytes
  /** How long ago the slowest of its loops turned, ms. */
  5: required i64 last_turn_ms
  6: required bool draining
  /** By how many ms the wall clock of its host is ahead of the store's clock. */
  7: required i64 clock_skew_ms
  /** By how many ms its last look at what falls due is overdue: it does not reach the store. */
  8: required i64 blind_ms
  /** Whether it has its process to itself: only then can it be told to drain. */
  9: required bool alone
}

/** It shares its process with other roles: end that with a signal. Do not repeat. */
exception NotAlone {
  1: required string em
}

service Worker {
  /** Tells of messages owned by this worker. Returns how many were new. Safe to repeat. */
  i32 deliver(1: string incarnation, 2: list<Due> messages) throws (1: WrongIncarnation wrong)

  /** Asked by each center once a second. Safe to repeat. */
  Load heartbeat(1: string incarnation) throws (1: WrongIncarnation wrong)

  /**
   * Has the worker leave, as SIGTERM does: it takes nothing new, its messages go to others, its
   * calls under way are finished, it ends. Returns at once. Safe to repeat.
   */
  void drain(1: string incarnation) throws (1: WrongIncarnation wrong, 2: NotAlone standalone)
}
