/** Served by each center (port 30001), called by workers. Internal. */
include "worker.thrift"

struct HandBack {
  1: required string topic
  2: required worker.Due due
}

service Center {
  /**
   * A worker hands back messages that wait for another attempt, to be balanced anew.
   * Returns how many went to another worker. Safe to repeat; need not succeed.
   */
  i32 hand_back(1: string owner, 2: list<HandBack> messages)
}
