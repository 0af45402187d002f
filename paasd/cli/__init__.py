"""The command line: an HTTP client of the API without logic of its own. The same commands run on the box and, inside
the daemon, for SSH sessions; those in `local.py` exist on the box only."""

from __future__ import annotations

from paasd.cli.program import main

__all__ = ["main"]
