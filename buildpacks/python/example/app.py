"""A small web app: says hello, and which release it is."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return f"Hello from paasd, release {os.environ.get('PAASD_RELEASE', 'none')}\n"


@app.get("/health")
def health() -> str:
    return "ok\n"
