/**
 * soraka: the public service, served by the receive role (port 30003).
 *
 * Framed transport, binary protocol. Times are integer milliseconds: a moment is
 * milliseconds since the epoch (UTC), a duration is milliseconds.
 * Field ids are never reused. This file alone is enough to make a client.
 */
namespace py soraka_client
namespace java soraka.client
namespace go sorakaclient

enum RequestType {
  GET = 1
  POST = 2
}

/** What is called at the due time. */
struct Callback {
  1: required RequestType request_type
  /** http or https, without credentials and control characters. */
  2: required string url
  /** A JSON object as text: the body of a POST, the query of a GET. */
  3: optional string params
}

/** One message to be called back later. Give delay_time or deliver_at, not both. */
struct Submission {
  1: required string topic_name
  /** From now on: 0 to 7 days. */
  2: optional i64 delay_time
  /** The due time itself; one in the past means at once. */
  3: optional i64 deliver_at
  /** Time to respond: the deadline of the whole call. Default 1000. */
  4: optional i64 ttr
  5: required Callback callback
  /** Delays between attempts; an empty list means one attempt. Default: the topic's. */
  6: optional list<i64> retry_delays
  /** Idempotency key: a UUIDv7 of your own. Sent again, the message is still one. */
  7: optional string msg_id
}

struct SubmitResult {
  /** 200, or the code of the error (see docs/protocol.md). */
  1: required i32 ec
  2: required string em
  3: optional string msg_id
}

enum MessageState {
  PENDING = 1
  SUCCEEDED = 2
  CANCELLED = 3
  DEAD = 4
}

/** A message and where it is. */
struct MessageInfo {
  1: required string msg_id
  2: required string topic_name
  3: required MessageState state
  4: required i64 created_at
  5: required i64 due_at
  /** Attempts begun so far. */
  6: required i32 attempt
  /** The worker (ip:port) that holds it; "-" while there is none. */
  7: required string owner
  8: required i64 ttr
  9: required Callback callback
  /** Until when a call of it may be under way; absent when none is. */
  10: optional i64 lease_until
  /** When it succeeded, was cancelled or died. */
  11: optional i64 finished_at
  /** Outcome of the last attempt, in words. */
  12: optional string reason
}

/** The request is wrong and stays wrong: do not repeat it. */
exception InvalidRequest {
  1: required i32 ec
  2: required string em
  3: optional string field
}

/** Do not repeat: create the topic first. */
exception TopicNotFound {
  1: required string em
}

/** Do not repeat: no such message, or its retention has passed. */
exception MessageNotFound {
  1: required string em
}

/** Do not repeat: it is being called, was called, was cancelled, or is dead. */
exception TooLate {
  1: required string em
}

/** Not known whether it was accepted: send again, with the same ids, after retry_after. */
exception Unavailable {
  1: required string em
  2: required i64 retry_after
}

service Soraka {
  /** Accepts one message; returns its id once it is durable. Repeat on Unavailable. */
  string submit(1: Submission submission)
    throws (1: InvalidRequest invalid, 2: TopicNotFound topic, 3: Unavailable unavailable)

  /**
   * Accepts up to 1,000 messages; one result for each, in their order. Good ones are
   * accepted although others are refused. Repeat those whose ec is 503.
   */
  list<SubmitResult> submitBatch(1: list<Submission> submissions)
    throws (1: InvalidRequest invalid, 2: Unavailable unavailable)

  /**
   * When this returns, the message is not called any more. Repeat on Unavailable, with the
   * same command_id (any string of 1 to 64 letters, digits, '-' or '_'; made for you when absent).
   */
  bool cancel(1: string topic_name, 2: string msg_id, 3: string command_id)
    throws (1: InvalidRequest invalid, 2: MessageNotFound missing, 3: TooLate late,
            4: Unavailable unavailable, 5: TopicNotFound topic)

  /** Moves the due time add_time later. Repeat on Unavailable, with the same command_id. */
  bool addTime(1: string topic_name, 2: string msg_id, 3: i64 add_time, 4: string command_id)
    throws (1: InvalidRequest invalid, 2: MessageNotFound missing, 3: TooLate late,
            4: Unavailable unavailable, 5: TopicNotFound topic)

  /** Where the message is. Safe to repeat. */
  MessageInfo get(1: string msg_id)
    throws (1: InvalidRequest invalid, 2: MessageNotFound missing, 3: Unavailable unavailable)
}
