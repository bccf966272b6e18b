"""How addresses are written."""


def at(host: str, port: int) -> str:
    """host:port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
