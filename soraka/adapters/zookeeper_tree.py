"""A local copy of some directories of ZooKeeper, kept up to date by watches.

A watch only notes what to read again; one greenlet reads. Requests of one session are answered in
order, so what is read after a write of the same session shows that write.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kazoo.exceptions import NoNodeError

from soraka.adapters.zookeeper_client import ZookeeperClient

BATCH = 200
"""Reads in flight at once. Each puts a byte into kazoo's wake-up pipe, which must not fill."""

Decode = Callable[[str, str, bytes], Any]
Place = tuple[str, str]
"""Directory and name; the name is empty for the directory itself."""


class Node(NamedTuple):
    """`value` is None when its data could not be decoded. `session` is 0 for a lasting node."""

    value: Any
    version: int
    session: int


class Tree:
    """`<root>/<directory>/<name>` for each of `directories`; everything is to be read at first.

    `decode(directory, name, data)` gives a node's value; None for data that is nothing.
    `stale` is called, and must not block, when there is something to read.
    """

    def __init__(
        self,
        client: ZookeeperClient,
        root: str,
        directories: Sequence[str],
        *,
        decode: Decode,
        stale: Callable[[], None],
    ) -> None:
        self._client = client
        self._root = root
        self._decode = decode
        self._stale = stale
        self._nodes: dict[str, dict[str, Node]] = {directory: {} for directory in directories}
        self._unread: set[Place] = set()
        self._changed: set[str] = set()
        self.invalidate_all()

    def nodes(self, directory: str) -> Mapping[str, Node]:
        return self._nodes[directory]

    def path(self, directory: str, name: str = "") -> str:
        return f"{self._root}/{directory}/{name}".rstrip("/")

    def invalidate(self, directory: str, name: str = "") -> None:
        """Reads the directory again, and the node if its name is given."""
        self._unread |= {(directory, ""), (directory, name)}

    def invalidate_all(self) -> None:
        """After a lost connection: its watches are gone too."""
        for directory, nodes in self._nodes.items():
            self._unread |= {(directory, name) for name in ("", *nodes)}

    def refresh(self) -> set[str]:
        """Reads what is to be read; returns the directories that changed since it last returned.

        What was not read when RegistryUnavailable is raised stays to be read.
        """
        while self._unread:
            batch = sorted(self._unread)[:BATCH]
            self._unread.difference_update(batch)
            try:
                with self._client.calls():
                    answers = self._read(batch)
            except BaseException:
                self._unread.update(batch)
                raise
            for (directory, name), answer in answers.items():
                apply = self._apply_node if name else self._apply_directory
                if apply(directory, name, answer):
                    self._changed.add(directory)
        changed, self._changed = self._changed, set()
        return changed

    def _read(self, batch: Sequence[Place]) -> dict[Place, Any]:
        asked = {place: self._ask(*place) for place in batch}
        answers: dict[Place, Any] = {}
        for (directory, name), answer in asked.items():
            try:
                answers[directory, name] = answer.get()
            except NoNodeError:
                answers[directory, name] = None
                if not name:
                    self._client.kazoo.ensure_path(self.path(directory))
        return answers

    def _ask(self, directory: str, name: str) -> Any:
        # kazoo keeps watches in a set, and this method is always the same one: none pile up
        path = self.path(directory, name)
        if name:
            return self._client.kazoo.get_async(path, watch=self._on_event)
        return self._client.kazoo.get_children_async(path, watch=self._on_event)

    def _apply_directory(self, directory: str, _: str, names: Sequence[str] | None) -> bool:
        known = self._nodes[directory]
        if names is None:  # just made: read it, for the watch
            self.invalidate(directory)
            names = ()
        gone = known.keys() - set(names)
        for name in gone:
            del known[name]
        self._unread |= {(directory, name) for name in names if name not in known}
        return bool(gone)

    def _apply_node(self, directory: str, name: str, answer: tuple[bytes, Any] | None) -> bool:
        known = self._nodes[directory]
        if answer is None:
            return known.pop(name, None) is not None
        data, stat = answer
        before = known.get(name)
        value = self._decode(directory, name, data)
        known[name] = Node(value, stat.version, stat.ephemeralOwner)
        return before is None or before.value != value

    def _on_event(self, event: Any) -> None:
        # Events without a path tell of the connection; `invalidate_all` serves those.
        if event.path is None:
            return
        directory, _, name = event.path[len(self._root) + 1 :].partition("/")
        if directory in self._nodes:
            self._unread.add((directory, name))
            self._stale()
