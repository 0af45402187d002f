"""What `build` compares with: for each language's example, the Dockerfile that somebody who knows Docker would write
for it, on the same base images; what a change of its code is, and of its dependencies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.box import Repository


@dataclass(frozen=True)
class Language:
    """`{name}` in the Dockerfile stands for a base image, `{cache}` for the start of the names of caches. The
    repository is in `app/` of the build context, beside the host's registry settings."""

    dockerfile: str
    code: str
    """The file that a change of code appends a comment to."""
    comment: str
    add: Callable[[Repository, str], None] | None = None
    """Adds a dependency; None when no registry of the language can be counted on."""
    packages: tuple[str, ...] = ()
    """What `add` can add, one a round."""

    @property
    def suffix(self) -> str:
        return self.code.rpartition(".")[2]


def add_to_requirements(repository: Repository, package: str) -> None:
    path = repository.path / "requirements.txt"
    path.write_text(f"{path.read_text()}{package}\n")


def add_to_lockfile(repository: Repository, package: str) -> None:
    command = ["npm", "install", "--package-lock-only", "--no-audit", "--no-fund", "--silent", package]
    subprocess.run(command, cwd=repository.path, check=True, capture_output=True, timeout=60)


def salt(repository: Repository, text: str) -> None:
    """Make the dependency files differ from those of every earlier run, whose layers the engine may still have."""
    requirements, package = repository.path / "requirements.txt", repository.path / "package.json"
    if requirements.exists():
        requirements.write_text(f"# {text}\n{requirements.read_text()}")
    if package.exists():
        package.write_text(json.dumps({**json.loads(package.read_text()), "description": text}, indent=2))


def fetch_once(language: str, package: str, folder: Path) -> None:
    """So that a mirror between here and the registry has it, and the first side to ask does not pay for both."""
    command = {
        "python": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package],
        "nodejs": ["npm", "pack", "--silent", "--pack-destination", str(folder), package],
    }[language]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


NGINX = """daemon off;
pid /tmp/nginx.pid;
events {}
http {
  include /etc/nginx/mime.types;
  server { listen 5000; root /srv/www; }
}
"""

LANGUAGES = {
    "nodejs": Language(
        """FROM {nodejs-build} AS packages
WORKDIR /app
COPY app/package.json app/package-lock.json ./
RUN --mount=type=bind,source=npmrc,target=/root/.npmrc --mount=type=cache,id={cache}-npm,target=/root/.npm \\
    npm ci --omit=dev --no-audit --no-fund
FROM {nodejs}
ENV NODE_ENV=production
WORKDIR /app
COPY --from=packages --chown=10001:10001 /app/node_modules node_modules
COPY --chown=10001:10001 app/ ./
USER 10001:10001
CMD ["node", "server.js"]
""",
        "server.js",
        "//",
        add_to_lockfile,
        ("nanoid", "dayjs", "picocolors", "uuid", "p-limit", "camelcase", "escape-string-regexp", "is-odd", "slugify"),
    ),
    "python": Language(
        """FROM {python-build} AS packages
RUN python3 -m venv /opt/venv
COPY app/requirements.txt ./
RUN --mount=type=bind,source=pip.conf,target=/etc/pip.conf --mount=type=cache,id={cache}-pip,target=/root/.cache/pip \\
    /opt/venv/bin/pip install -r requirements.txt
FROM {python}
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY --chown=10001:10001 app/ ./
USER 10001:10001
CMD ["gunicorn", "--bind", "0.0.0.0:5000", "app:app"]
""",
        "app.py",
        "#",
        add_to_requirements,
        ("toolz", "tabulate", "humanize", "colorama", "pytz", "docopt", "six", "wcwidth", "iniconfig"),
    ),
    "go": Language(
        """FROM {go} AS build
WORKDIR /src
COPY app/go.mod ./
RUN --mount=type=bind,source=go.env,target=/run/go.env GOENV=/run/go.env go mod download
COPY app/ ./
RUN --mount=type=cache,id={cache}-go,target=/cache \\
    GOCACHE=/cache CGO_ENABLED=0 go build -ldflags='-s -w' -o /out/bin/ ./cmd/...
FROM {go-run}
WORKDIR /app
COPY --from=build --chown=10001:10001 /out ./
COPY --chown=10001:10001 app/templates templates
USER 10001:10001
CMD ["/app/bin/web"]
""",
        "cmd/web/main.go",
        "//",
    ),
    "rust": Language(
        """FROM {rust} AS build
WORKDIR /src
COPY app/ ./
RUN --mount=type=cache,id={cache}-cargo,target=/cache \\
    CARGO_TARGET_DIR=/cache cargo build --release --locked && cp /cache/release/hello /hello
FROM {rust-run}
WORKDIR /app
COPY --from=build --chown=10001:10001 /hello bin/hello
USER 10001:10001
CMD ["/app/bin/hello"]
""",
        "src/main.rs",
        "//",
    ),
    "php": Language(
        """FROM {php-build} AS packages
WORKDIR /app
COPY app/composer.json ./
RUN composer install --no-dev --no-scripts --no-autoloader
COPY app/ ./
RUN composer dump-autoload --no-dev --optimize
FROM {php}
WORKDIR /app
COPY --from=packages --chown=10001:10001 /app ./
USER 10001:10001
CMD ["php", "-S", "0.0.0.0:5000", "-t", "public"]
""",
        "src/Page.php",
        "//",
    ),
    "ruby": Language(
        """FROM {ruby-rack}
WORKDIR /app
COPY --chown=10001:10001 app/ ./
USER 10001:10001
CMD ["puma", "-p", "5000"]
""",
        "config.ru",
        "#",
    ),
    "static": Language(
        """FROM {static}
COPY nginx.conf /etc/nginx/own.conf
COPY app/ /srv/www/
USER 10001:10001
CMD ["nginx", "-c", "/etc/nginx/own.conf"]
""",
        "style.css",
        "",
    ),
}
