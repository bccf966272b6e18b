/**
 * What the log holds and the store keeps: one definition for both.
 * A value is one version byte (1), then a Record in the binary protocol.
 */
include "soraka.thrift"

struct Message {
  1: required string msg_id
  2: required string topic
  3: required i64 created_at
  4: required i64 due_at
  5: required i64 ttr_ms
  6: required soraka.Callback callback
  /** Absent: 1 s, 10 s, 60 s, 300 s and 3000 s. That never changes; other delays are written. */
  7: optional list<i64> retry_ms
}

enum CommandKind {
  CANCEL = 1
  ADD_TIME = 2
  FIRE_NOW = 3
  REDRIVE = 4
}

struct Command {
  1: required string command_id
  2: required string msg_id
  3: required string topic
  4: required CommandKind kind
  5: required i64 add_ms
}

/** Exactly one of the two. */
struct Record {
  1: optional Message message
  2: optional Command command
}
