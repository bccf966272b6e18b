"""up, down, status, start and stop, on a stack that the caller has opened."""

import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import StackError, jars, processes
from .install import require
from .ports import Choice, choose, is_free
from .specs import BY_NAME, USUAL_PORTS, Spec
from .state import Server, Stack

STOP_SECONDS = 15.0
TAIL_LINES = 25


def up(stack: Stack, wanted: Sequence[Spec], choice: Choice, timeout: float) -> None:
    """Start those of `wanted` that do not run, and return when all of `wanted` answer.

    On failure, whatever this call started is stopped again.
    """
    require(program for spec in wanted for program in spec.programs)
    if any("java" in spec.programs for spec in wanted):
        jars.fetch()
    idle = _settle(stack, wanted, choice)
    _refuse_taken_ports(stack, idle)
    _run(stack, idle, wanted, timeout)


def start(stack: Stack, name: str, timeout: float) -> None:
    """Start the recorded server `name` again: same ports, same data, same command line."""
    spec = BY_NAME[name]
    idle = [] if stack.get(name).running else [spec]
    _refuse_taken_ports(stack, idle)
    _run(stack, idle, [spec], timeout)


def stop(stack: Stack, names: Iterable[str], number: signal.Signals = signal.SIGTERM) -> None:
    """End the servers `names`: all are signalled, then each is awaited, at last killed."""
    servers = {name: stack.get(name) for name in names}
    for server in servers.values():
        processes.send(server.pid, server.config, number)
    for name, server in servers.items():
        if not processes.end(server.pid, server.config, STOP_SECONDS):
            _say(f"{name} did not end within {STOP_SECONDS:.0f} s and was killed")
        server.pid = None
        stack.save()


def down(stack: Stack, wipe: bool) -> None:
    """End all servers, the last one started first; with `wipe` remove the directory too."""
    stop(stack, reversed(list(stack.servers)))
    if wipe:
        stack.wipe()


def status(stack: Stack) -> bool:
    """Print a line per server; True when there is one at least and all of them answer."""
    states = [_state(stack, spec) for spec in stack.specs]
    for spec, state in zip(stack.specs, states, strict=True):
        server = stack.servers[spec.name]
        ports = " ".join(f"{name}={port}" for name, port in server.ports.items())
        print(f"{spec.name:<10} {state:<8} pid={server.pid or '-'} {ports} log={server.log}")
    if not states:
        print(f"no stack in {stack.dir}")
    return bool(states) and set(states) == {"up"}


def _state(stack: Stack, spec: Spec) -> str:
    server = stack.servers[spec.name]
    if not server.running:
        return "down"
    return "up" if spec.is_up(server.ports, stack.tls) else "silent"


def _settle(stack: Stack, wanted: Sequence[Spec], choice: Choice) -> list[Spec]:
    """Give ports and a configuration to the servers of `wanted` that do not run; return those."""
    idle = []
    for spec in wanted:
        before = stack.ports
        ports = choose(spec.port_names, USUAL_PORTS, before, choice)
        recorded = stack.servers.get(spec.name)
        if recorded is None or not recorded.running:
            stack.configure(spec.name, ports)
            idle.append(spec)
        elif ports != recorded.ports:
            raise StackError(f"{spec.name} runs with {recorded.ports}: stop it to change them")
    return idle


def _refuse_taken_ports(stack: Stack, idle: Iterable[Spec]) -> None:
    taken = [
        f"{name.replace('_', '-')} port {stack.ports[name]}"
        for spec in idle
        for name in spec.ports
        if not is_free(stack.ports[name])
    ]
    if taken:
        raise StackError(
            f"taken on 127.0.0.1: {', '.join(taken)}; choose with --NAME-port or --ports auto"
        )


def _run(stack: Stack, idle: Sequence[Spec], wanted: Sequence[Spec], timeout: float) -> None:
    """Start `idle`, then wait for `wanted`; stop `idle` again if that fails or is interrupted."""
    began = time.monotonic()
    try:
        for spec in idle:
            _launch(stack, spec)
        _await_answers(stack, wanted, began, timeout)
    except BaseException:
        stop(stack, [spec.name for spec in reversed(idle)])
        raise


def _launch(stack: Stack, spec: Spec) -> None:
    server = stack.servers[spec.name]
    if spec.prepare is not None:
        spec.prepare(Path(server.config))
    server.pid = processes.spawn(server.argv, Path(server.log))
    # At once, so that `down` finds the process even when this command is killed now.
    stack.save()


def _await_answers(stack: Stack, wanted: Iterable[Spec], began: float, timeout: float) -> None:
    waiting = list(wanted)
    while waiting:
        for spec in list(waiting):
            server = stack.servers[spec.name]
            if not server.running:
                raise StackError(f"{spec.name} ended while it started{_tail(server)}")
            seconds = time.monotonic() - began
            if spec.is_up(server.ports, stack.tls):
                waiting.remove(spec)
                _say(f"{spec.name:<10} 127.0.0.1:{server.port} up after {seconds:.1f} s")
            elif seconds > timeout:
                raise StackError(f"{spec.name} gave no answer in {timeout:.0f} s{_tail(server)}")
        time.sleep(processes.POLL_SECONDS)


def _tail(server: Server) -> str:
    lines = Path(server.log).read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join([f"; the end of {server.log}:", *(f"  {line}" for line in lines)])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
