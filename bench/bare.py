"""The reference of each run: what Flask itself takes for an "ok", on gunicorn with gevent."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def ok() -> str:
    return "ok"
