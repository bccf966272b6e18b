"""Benchmarks of soraka as a user meets it: real processes, real sockets. See README.md.

Nothing here is imported by soraka or needed to run it.
"""
