"""The registry in ZooKeeper: ephemeral nodes for instances and locks, lasting ones for topics.

One greenlet, the keeper, compares what this process wants to be there with what is there, and
mends it: at once when a watch fires, a register or a reconnect asks for it, and every
`TICK_S` anyway. So a lost session, a node deleted by hand and a restarted server are one case.

Of several processes that announce one address, those of one incarnation (siblings behind one
socket) share the node: one has it, and when it goes another puts it there again.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import gevent
from gevent.event import Event
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from soraka.adapters.coalesce import Coalesced
from soraka.adapters.registry_json import (
    SERVICES,
    check_address,
    check_segment,
    check_service,
    decode_instance,
    decode_topic,
    encode_instance,
    encode_topic,
)
from soraka.adapters.zookeeper_client import ZookeeperClient
from soraka.adapters.zookeeper_locks import Locks
from soraka.adapters.zookeeper_tree import Node, Tree
from soraka.errors import DecodeError, RegistryUnavailable
from soraka.message import Instance, Topic
from soraka.tls import Context

log = logging.getLogger(__name__)

TICK_S = 1.5
TRIES = 3
"""Per turn; more than one for when another process comes in between reading and writing."""


class ZookeeperRegistry:
    """`hosts` is host:port,... ; `timeout_ms` limits each wait for ZooKeeper. `secured` is for TLS;
    with a `username` each node is open to that user alone.

    The constructor waits for a first full copy and raises RegistryUnavailable without one. From
    then on outages are logged and outlived, with the copy as it was. `register` and `unregister`
    never raise for an outage: they note what is wanted, and return when it is so or after
    `timeout_ms`. `live` and `topics` return snapshots: never changed, only replaced.
    """

    def __init__(
        self,
        *,
        hosts: str,
        root: str = "/soraka",
        secured: Context | None = None,
        username: str = "",
        password: str = "",
        session_timeout_ms: int = 6000,
        timeout_ms: int = 3000,
    ) -> None:
        self._wanted: dict[tuple[str, str], Instance] = {}
        self._new: set[tuple[str, str]] = set()
        self._live: dict[str, dict[str, Instance]] = {}
        self._topics: dict[str, Topic] = {}
        self._watchers: list[Coalesced] = []
        self._wake = Event()
        self._waiting: list[Event] = []
        self._closed = False
        self._timeout_s = timeout_ms / 1000
        self._client = ZookeeperClient(
            hosts,
            session_timeout_ms / 1000,
            self._timeout_s,
            secured=secured,
            username=username,
            password=password,
        )
        self._locks = Locks(self._client)
        self._tree = Tree(
            self._client,
            root.rstrip("/"),
            (*SERVICES, "topic"),
            decode=_decode,
            stale=self._wake.set,
        )
        self._keeper: gevent.Greenlet[..., None] | None = None
        try:
            self._client.connect(self._on_connected)
            self._refresh()
        except BaseException:
            self.close()
            raise
        self._keeper = gevent.spawn(self._keep)

    # ------------------------------------------------------------------- the port

    def register(self, instance: Instance) -> None:
        check_service(instance.service)
        check_address(instance.address)
        key = instance.service, instance.address
        if self._closed:
            raise RegistryUnavailable("the registry is closed")
        self._wanted[key] = instance
        self._new.add(key)
        if not self._turned():
            log.warning("registry.register_pending", extra={"instance": instance.address})

    def unregister(self, instance: Instance) -> None:
        key = instance.service, instance.address
        wanted = self._wanted.get(key)
        if wanted is None or wanted.incarnation != instance.incarnation:
            return
        del self._wanted[key]
        self._new.discard(key)
        if not self._turned():
            log.warning("registry.unregister_pending", extra={"instance": instance.address})

    def live(self, service: str) -> dict[str, Instance]:
        return self._live.get(service, {})

    def topics(self) -> dict[str, Topic]:
        return self._topics

    def put_topic(self, topic: Topic, *, was: Topic | None) -> bool:
        kazoo, data = self._client.kazoo, encode_topic(topic)

        def create(path: str) -> bool:
            kazoo.create(path, data, makepath=True)
            return True

        def replace(path: str) -> bool:
            node = self._tree.nodes("topic").get(topic.name)
            if node is None or node.value != was:
                return False
            kazoo.set(path, data, version=node.version)
            return True

        return self._write(topic.name, create if was is None else replace)

    def delete_topic(self, name: str) -> bool:
        def delete(path: str) -> bool:
            self._client.kazoo.delete(path)
            return True

        return self._write(name, delete)

    def watch(self, changed: Callable[[], None]) -> None:
        self._watchers.append(Coalesced(changed))

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        check_segment("lock", name)
        path = self._tree.path("lock", name)
        had = self._locks.take(path)
        try:
            yield had
        finally:
            if had:
                self._locks.release(path)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.kill()
        self._live = {}
        self._client.close()

    def _write(self, topic: str, write: Callable[[str], bool]) -> bool:
        """Writes the node of a topic and reads it back; False when it is not as expected."""
        check_segment("topic_name", topic)
        done = False
        with self._client.calls(), suppress(NodeExistsError, NoNodeError, BadVersionError):
            done = write(self._tree.path("topic", topic))
        self._tree.invalidate("topic", topic)
        if not self._turned():
            raise RegistryUnavailable(f"{topic} could not be read back")
        return done

    # ----------------------------------------------------------------- the keeper

    def _keep(self) -> None:
        while True:
            if not self._wake.wait(TICK_S):
                for service, address in self._wanted:
                    self._tree.invalidate(service, address)
            self._wake.clear()
            try:
                if self._client.connected:
                    self._turn()
                else:
                    self._client.renew()
            except RegistryUnavailable as exc:
                log.warning("registry.unavailable", extra={"reason": str(exc)})
            except Exception:  # if this greenlet ends, nobody announces us again
                log.exception("registry.failed")

    def _on_connected(self) -> None:
        self._tree.invalidate_all()
        self._wake.set()

    def _turn(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            self._refresh()
            for _ in range(TRIES):
                if not self._mend():
                    break
                self._refresh()
        except BaseException:
            self._waiting += waiting
            raise
        for done in waiting:
            done.set()

    def _turned(self) -> bool:
        """Waits for a whole turn of the keeper, from now on; False when there was none in time."""
        done = Event()
        self._waiting.append(done)
        self._wake.set()
        return bool(done.wait(self._timeout_s))

    def _refresh(self) -> None:
        changed = self._tree.refresh()
        for directory in changed:
            nodes = self._tree.nodes(directory).items()
            values = {name: node.value for name, node in nodes if node.value is not None}
            if directory == "topic":
                self._topics = values
            else:
                self._live[directory] = values
        if changed:
            for watcher in self._watchers:
                watcher.ask()

    def _mend(self) -> bool:
        """Makes ZooKeeper say what is wanted. True when something is to be read again."""
        self._locks.mend()
        withdrawn = [self._withdraw(*place) for place in self._strays()]
        announced = [self._announce(instance) for instance in list(self._wanted.values())]
        return any((*withdrawn, *announced))

    def _strays(self) -> list[tuple[str, str]]:
        """Nodes of this session that nobody wants: unregistered, or made after we gave up."""
        session = self._client.session()
        return [
            (service, address)
            for service in SERVICES
            for address, node in self._tree.nodes(service).items()
            if node.session == session and (service, address) not in self._wanted
        ]

    def _withdraw(self, service: str, address: str) -> bool:
        self._tree.invalidate(service, address)
        with self._client.calls(), suppress(NoNodeError):
            self._client.kazoo.delete(self._tree.path(service, address))
        return True

    def _announce(self, instance: Instance) -> bool:
        key = instance.service, instance.address
        node = self._tree.nodes(instance.service).get(instance.address)
        if node is not None and not self._replaceable(node, instance, key in self._new):
            self._new.discard(key)
            return False
        self._tree.invalidate(*key)
        path, data = self._tree.path(*key), encode_instance(instance)
        # Whoever came in between is read next, and then looked at again.
        with self._client.calls(), suppress(NodeExistsError):
            if node is None:
                self._client.kazoo.create(path, data, ephemeral=True, makepath=True)
                self._new.discard(key)
            elif self._swap(path, node, data):
                log.info("registry.replaced", extra={"instance": instance.address})
                self._new.discard(key)
        return True

    def _swap(self, path: str, node: Node, data: bytes) -> bool:
        """A node of this session in the place of `node`, in one step; False if that changed."""
        transaction = self._client.kazoo.transaction()
        transaction.delete(path, version=node.version)
        transaction.create(path, data, ephemeral=True)
        return not any(isinstance(result, Exception) for result in transaction.commit())

    def _replaceable(self, node: Node, instance: Instance, new: bool) -> bool:
        """Whether `instance` may take this node's place.

        One that was just registered may always. Later only from an older one, or from this very
        session: two processes that both believe in their address must not replace each other for
        ever, nor two siblings of which one drains.
        """
        found: Instance | None = node.value
        if found is None:
            return True
        if found.incarnation == instance.incarnation:
            mine = node.session == self._client.session()
            return found != instance and (new or mine)
        return new or found.started_at < instance.started_at


def _decode(directory: str, name: str, data: bytes) -> Instance | Topic | None:
    try:
        if directory == "topic":
            return decode_topic(name, data)
        return decode_instance(directory, name, data)
    except DecodeError as exc:
        log.error("registry.malformed", extra={"node": f"{directory}/{name}", "reason": str(exc)})
        return None
