"""Adapters of the ports. Only `soraka.wiring` and tests import them."""
