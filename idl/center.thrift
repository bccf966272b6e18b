/** Served by each center (port 30001), called by workers. Internal. */
include "worker.thrift"

struct HandBack {
  1: required string topic
  2: required worker.Due due
}

service Center {
  /**
   * A worker hands back messages that wait for another attempt, to be balanced anew.
   * Returns the ids of those that went to another worker: the caller need not hold them any
   * more. Safe to repeat; need not succeed.
   */
  list<string> hand_back(1: string owner, 2: list<HandBack> messages)
}
