"""What `dev/stack` is made of: private Redis, Kafka, ZooKeeper and nginx servers on loopback.

Standard library only, so that it runs before there is a virtual environment. Linux only: whether
a recorded pid is still ours is read from /proc.

    cli        the command line
    commands   up, down, status, start, stop
    state      the directory of one stack: its lock, stack.json and soraka.toml
    specs      the four servers, three of them with TLS too: ports, configuration, command line
    secured    certificates and a user, for the servers with TLS
    probes     does a server really answer?
    ports      which port each server gets
    processes  start, recognise and end a process
    jars       Kafka's and ZooKeeper's jars, fetched once through dev/pom.xml
    npm        packages of the npm registry: what the browser gets, and its tests
    install    the system packages
"""


class StackError(Exception):
    """Something to tell the user; `code` is the exit status of `dev/stack`."""

    code = 1


class MissingError(StackError):
    """A program or the jars are not here, so tests may skip instead of fail."""

    code = 3
