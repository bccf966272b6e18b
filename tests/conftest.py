# ruff: noqa: E402, I001
from gevent import monkey

monkey.patch_all()

pytest_plugins = ["tests.servers"]
