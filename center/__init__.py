"""center: from the log to the store and on to a worker; takes over from absent workers."""
