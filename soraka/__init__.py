"""soraka: a distributed delayed-message queue."""

__version__ = "0.1.0"
