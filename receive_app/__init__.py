"""The role that accepts submissions, cancels and added times, over HTTP and Thrift."""
