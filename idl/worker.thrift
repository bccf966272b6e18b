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

service Worker {
  /** Tells of messages owned by this worker. Returns how many were new. Safe to repeat. */
  i32 deliver(1: string incarnation, 2: list<Due> messages) throws (1: WrongIncarnation wrong)
}
