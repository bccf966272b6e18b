/** Served by each center (port 30001), called by workers. Internal. */
include "worker.thrift"

struct HandBack {
  1: required string topic
  2: required worker.Due due
}

struct Rebalanced {
  1: required i64 looked_at
  2: required i64 moved
  3: required string cursor
}

service Center {
  /**
   * A worker hands back messages that wait for another attempt, to be balanced anew.
   * Returns the ids of those that went to another worker: the caller need not hold them any
   * more. Safe to repeat; need not succeed.
   */
  list<string> hand_back(1: string owner, 2: list<HandBack> messages)

  /**
   * Balances pending messages of a topic anew, about a thousand at a call. Begin with the cursor
   * "" and go on with the one returned until it is "". Safe to repeat.
   */
  Rebalanced rebalance(1: string topic, 2: string cursor)
}
