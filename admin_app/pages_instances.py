"""Instances by service: how each worker fares, and its drain."""

from flask import Blueprint, render_template, request, url_for

from admin_app.instances import SERVICES
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
            now=service.now_ms(),
        )

    @pages.post("/instances/<address>/drain")
    @asks("drain", lambda address: f"worker {address}")
    def drain(address: str) -> Answer:
        here = url_for("pages.instances")
        told = f"{address} was told to drain; it leaves this list when it has ended."
        return then(here, told, lambda: service.instances.drain(address))


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
