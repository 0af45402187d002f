"""Packages of the distribution that well-known Python packages need beside their wheels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    run: tuple[str, ...] = ()
    """What it loads or calls when it runs."""
    build: tuple[str, ...] = ()
    """What its source distribution is compiled with; it has no wheels for Linux, or not for every version."""


_CAIRO = Needs(run=("libcairo2",))
_GL = Needs(run=("libgl1", "libglib2.0-0"))
_MARIADB = Needs(run=("libmariadb3",), build=("libmariadb-dev",))
_POSTGRES = Needs(run=("libpq5",))  # libpq-dev is in the base image
_TEXT = Needs(run=("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0", "fonts-dejavu-core"))

NEEDS: Mapping[str, Needs] = {
    "psycopg2": _POSTGRES,  # compiled from source
    "psycopg": _POSTGRES,  # loads libpq, unless psycopg-binary is there too
    "psycopg-c": _POSTGRES,
    "mysqlclient": _MARIADB,
    "mariadb": _MARIADB,
    "cairocffi": _CAIRO,  # loads it with cffi
    "cairosvg": _CAIRO,
    "pycairo": Needs(run=("libcairo2",), build=("libcairo2-dev",)),
    "weasyprint": _TEXT,
    "opencv-python": _GL,
    "opencv-contrib-python": _GL,
    "python-magic": Needs(run=("libmagic1",)),
    "pdf2image": Needs(run=("poppler-utils",)),  # calls pdftoppm
    "pytesseract": Needs(run=("tesseract-ocr",)),
    "pydub": Needs(run=("ffmpeg",)),
    "ffmpeg-python": Needs(run=("ffmpeg",)),
    "graphviz": Needs(run=("graphviz",)),  # calls dot
    "pygraphviz": Needs(run=("graphviz",), build=("libgraphviz-dev",)),
    "pyzbar": Needs(run=("libzbar0",)),
    "lightgbm": Needs(run=("libgomp1",)),
    "pyodbc": Needs(run=("unixodbc",), build=("unixodbc-dev",)),
    "gitpython": Needs(run=("git",)),  # calls git
}


def needed(packages: frozenset[str]) -> dict[str, Needs]:
    """By the package that needs them."""
    found = {name: NEEDS[name] for name in sorted(packages & set(NEEDS))}
    if packages & {"psycopg-binary", "psycopg-c"}:
        found.pop("psycopg", None)
    return found
