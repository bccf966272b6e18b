"""What admin can do, over the ports: the same operations for the API and for the pages.

They return dataclasses and raise the errors of `soraka.errors`. Who may call them, and the audit
of it, is the matter of the HTTP edge.
"""

import uuid

from admin_app.bulk import Bulk
from admin_app.instances import Instances
from admin_app.messages import Messages
from admin_app.monitor import Monitor
from admin_app.overview import Overview, Overviews
from admin_app.topics import TopicAdmin
from soraka import wire
from soraka.commands import Commands
from soraka.stats import Counted
from soraka.wiring import Parts


class Service:
    """Over the adapters of a process, whose clock must be known. `counted` is told of commands
    that held."""

    def __init__(self, parts: Parts, counted: Counted = lambda _topic, _name, _count: None) -> None:
        store, registry, clock = parts.store, parts.registry, parts.clock
        commands = Commands(
            log=parts.log,
            store=store,
            reader=store,
            known_topics=parts.topics.find,
            clock=clock,
            encode=wire.encode,
            new_id=lambda: uuid.uuid4().hex,
            early_ms=parts.config.store.early_ms,
            counted=counted,
        )
        self.now_ms = clock.now_ms
        self.instances = Instances(
            registry,
            store,
            rpc_timeout_ms=parts.config.center.rpc_timeout_ms,
            secured=parts.peers_tls,
        )
        self.topics = TopicAdmin(parts.topics, store, self.instances.choose)
        self.messages = Messages(store, registry, commands)
        self.monitor = Monitor(store, registry, clock.now_ms)
        self.bulk = Bulk(self.messages, store, commands, clock)
        self._overviews = Overviews(parts.log, store, registry, self.monitor, clock)

    def overview(self) -> Overview:
        """Never raises Unavailable: it shows what does not answer."""
        return self._overviews.get()

    def down(self) -> list[str]:
        """Of log and store, those that do not answer now."""
        ports = self._overviews.ports()
        return [name for name in ("log", "store") if ports[name]]
