from gevent import monkey

monkey.patch_all()

pytest_plugins = ["tests.servers", "tests.redis_groups"]
