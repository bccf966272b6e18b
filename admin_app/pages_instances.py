"""Instances by service: how each worker fares, and its drain."""

from collections.abc import Iterable

from flask import Blueprint, render_template, request, url_for

from admin_app.instances import SERVICES, InstanceView
from admin_app.page_kit import Answer, asks, then
from admin_app.service import Service
from soraka.errors import StoreUnavailable
from soraka.message import NO_OWNER, PARKED


def add_instances(pages: Blueprint, service: Service) -> None:
    @pages.get("/instances")
    def instances() -> str:
        wanted = request.args.get("service", "all")
        views = service.instances.all(wanted)
        absent = _waiting(service) if wanted in ("all", "worker") else []
        return render_template(
            "instances.html",
            here="instances",
            views=views,
            wanted=wanted,
            services=("all", *SERVICES),
            absent=absent,
            at_work=_at_work(views),
            now=service.now_ms(),
        )

    @pages.post("/instances/<address>/drain")
    def drain(address: str) -> Answer:
        last = _at_work(service.instances.all("worker")) == [address]
        asking = asks("drain_last" if last else "drain", lambda: f"worker {address}")
        return asking(lambda: _drain(service, address))()


def _drain(service: Service, address: str) -> Answer:
    told = f"{address} was told to drain; it leaves this list when it has ended."
    return then(url_for("pages.instances"), told, lambda: service.instances.drain(address))


def _at_work(views: Iterable[InstanceView]) -> list[str]:
    """Addresses of the live workers that do not drain."""
    known = [view.instance for view in views]
    return [i.address for i in known if i.service == "worker" and not i.draining]


def _waiting(service: Service) -> list[tuple[str, str, int]] | None:
    """Owners that are no live worker: what they are, their name, how many messages. None when the
    store does not say."""
    try:
        absent = service.instances.absent()
    except StoreUnavailable:
        return None
    return [(*_owner(owner), count) for owner, count in absent.items()]


def _owner(owner: str) -> tuple[str, str]:
    if owner == NO_OWNER:
        return "no worker was live", ""
    if owner.startswith(PARKED):
        return "paused topic", owner.removeprefix(PARKED)
    return "worker that is gone", owner
