from __future__ import annotations

import contextlib
import time

import pytest

from paasd.build.dockerfile_rules import check
from paasd.errors import SourceRejected

BASE = "FROM paasd/python:3.13\n"
OTHER = "box/other-1234abcd:b1"


@pytest.mark.parametrize(
    "text",
    [
        "ADD http://127.0.0.1:8080/x /x",
        "add --chown=1:1 https://example.org/x.tar /x",
        "ADD git@example.org:x.git /x",
        "ADD deploy@example.org:x.git /x",
        "ADD github.com/a/b /x",
        "ARG URL\nADD $URL /x",
        "ADD https:/$REST /x",
        "ONBUILD ADD http://x/y /y",
        'ADD ["http://x/y", "/y"]',
        'ADD ["http://x/y","/y"]',
        "ADD a b http://x/y /y",
        "ADD \\\n  http://x/y /y",
        "ADD \\\n# comment\n\n  http://x/y /y",
        "ADD ht\\\ntp://x/y /y",
        "A\\\nDD http://x/y /y",
        "ADD\thttp://x/y\t/y",
        "ADD\x0chttp://x/y /y",
        "RUN <<EOF\nADD http://x/y /y\nEOF",
    ],
)
def test_remote_files_are_refused(text: str) -> None:
    with pytest.raises(SourceRejected, match="adds a remote file"):
        check(f"{BASE}{text}\n", "box")


@pytest.mark.parametrize(
    "text",
    [
        "RUN --mount=type=cache,id=paasd-apt-bookworm,target=/c ls /c",
        "ARG I\nRUN --mount=type=cache,id=$I,target=/c ls /c",
        "RUN --mount=type=cache,id=paa${I},target=/c ls /c",
        'RUN --mount="type=cache,id=paasd-x",target=/c ls /c',
        'RUN --mount=type=cache,"id=paasd-x",target=/c ls /c',
        "RUN --mount=type=cache,i\\d=paasd-x,target=/c ls /c",
        "RUN --mount=type=cache,ID=paasd-x,target=/c ls /c",
        "RUN --mount=type=cache,id=mine,id=paasd-x,target=/c ls /c",
    ],
)
def test_caches_of_paasd_are_refused(text: str) -> None:
    with pytest.raises(SourceRejected, match="names a cache"):
        check(f"{BASE}{text}\n", "box")


@pytest.mark.parametrize(
    "text",
    [
        f"FROM {OTHER}",
        f"from --platform=linux/amd64 docker.io/{OTHER} as x",
        f"FROM index.docker.io/{OTHER}",
        f'FROM "{OTHER}"',
        "FROM bo\\x/other-1234abcd:b1",
        f"FROM {OTHER}@sha256:{'a' * 64}",
        "FROM box/anything",
        f"COPY --from={OTHER} /app /stolen",
        f"COPY --chown=1:1 --from={OTHER} /app /stolen",
        f"ONBUILD COPY --from={OTHER} /app /stolen",
        f"COPY --fr\\om={OTHER} /a /b",
        f"RUN --mount=type=bind,from={OTHER},target=/x cat /x/app.py",
        f"RUN --mount=type=bind,from=x,from={OTHER},target=/x cat /x/app.py",
        f"RUN --mount=type=bind,target=/y --mount=type=bind,FROM={OTHER},target=/x cat /x/app.py",
        "COPY --from=$X /a /b",
        # Other readings of what a line is
        "FROM box/ot\\\nher-1234abcd:b1",
        "FROM \\\n# comment\n\nbox/other-1234abcd:b1",
        "FR\\\nOM box/other-1234abcd:b1",
        f"RUN echo \\\\\nFROM {OTHER}",
        f"RUN <<EOF\nFROM {OTHER}\nEOF",
        f"RUN cat <<EOF\nEOF\nFROM {OTHER}",
        f"   FROM\t{OTHER}",
        f"FROM\x0b{OTHER}",
        f"RUN x\r\nFROM {OTHER}\r",
        # Variables
        f"FROM ${{X:-{OTHER}}}",
        f"FROM ${{X-{OTHER}}}",
        f"FROM ${{HOME:+{OTHER}}}",
        "FROM ${X:-${Y:-box}}/other-1234abcd:b1",
        "FROM ${X}box/other-1234abcd:b1",
        "FROM b${X}ox/other-1234abcd:b1",
        "FROM ${X%x}/y",
        "FROM ${TARGETARCH}/y",
        "FROM box/$TARGETARCH",
    ],
)
def test_images_of_apps_are_refused(text: str) -> None:
    with pytest.raises(SourceRejected, match="uses the image of an app"):
        check(f"{BASE}{text}\n", "box")


@pytest.mark.parametrize(
    "text",
    [
        f"ARG X={OTHER}\nFROM $X\n",
        f"arg X={OTHER}\nfrom ${{X}}\n",
        f'ARG X="{OTHER}"\nFROM $X\n',
        "ARG A=box\nARG B=$A/other-1234abcd\nFROM ${B}:b1\n",
        f"ARG X=fine\nARG X={OTHER}\nFROM $X\n",
        f"ARG A=1 X={OTHER}\nFROM $X\n",
        f"ARG \\\n  X={OTHER}\nFROM $X\n",
        "ARG X=box/oth\\\ner-1234abcd:b1\nFROM $X\n",
        "ARG X=$X$X$X\nFROM $X/y\n",
        "# escape=`\nFROM bo`\nx/other-1234abcd:b1\n",
        f"# escape=`\nARG X=C:\\\nFROM {OTHER}\n",
        "# syntax=docker/dockerfile:1\n# escape=`\nFROM paasd/base AS b\nCOPY --fr`om=box/other-1234abcd:b1 /a /b\n",
    ],
)
def test_images_of_apps_behind_arguments_are_refused(text: str) -> None:
    with pytest.raises(SourceRejected, match="uses the image of an app"):
        check(text, "box")


@pytest.mark.parametrize("label", ["box", "paasd"])
def test_everyday_dockerfiles_are_fine(label: str) -> None:
    text = """# syntax=docker/dockerfile:1
ARG TAG=bookworm PYTHON="3.12"
FROM paasd/python:$TAG AS build
FROM --platform=$BUILDPLATFORM python:${PYTHON}-slim AS other
FROM boxer/image
FROM docker.io/library/debian:${DEBIAN:-12}
FROM registry.example.org:5000/box/other:${VERSION%.*}
FROM scratch
FROM build AS final-1234abcd
ENV HOME=/srv
ADD local.tar archive-1.zip $HOME/x
ADD --chown=$USER ./app-${VERSION}.jar /x
ADD ["a b", "/x"]
COPY --from=build /a /a
COPY --from=0 /a /a
COPY --from=alpine:3.20 /a /a
RUN --mount=type=cache,target=/root/.cache pip install x
RUN --mount=type=cache,id=npm-$TARGETPLATFORM,target=/root/.npm npm ci
RUN --mount=type=bind,from=build,source=/a,target=/b curl "http://example.org/x?from=$DAY" \\
    # what follows belongs to it
    && echo `date`
RUN <<EOF
psql -c "SELECT * FROM $TABLE"
EOF
CMD ["python3", "app.py"]
"""
    check(text, label)


def test_base_images_stay_usable_where_the_label_is_their_prefix() -> None:
    for image in ("paasd/base", "paasd/python:3.13", "docker.io/paasd/python-build:trixie"):
        check(f"FROM {image}\n", "paasd")
        check(f"FROM {image}\nCOPY --from={image} /a /b\n", "box")
    for image in ("paasd/blog-1234abcd:b7", "docker.io/paasd/blog-1234abcd", "elsewhere/blog-1234abcd:b7"):
        for label in ("paasd", "box"):
            with pytest.raises(SourceRejected):
                check(f"FROM {image}\n", label)
    for text in ("FROM paasd/python$X\nARG X=-1234abcd:b7\n", "FROM paasd/$TARGETARCH\n"):
        with pytest.raises(SourceRejected):
            check(text, "paasd")


@pytest.mark.parametrize(
    "line", ["ADD a \\", "FROM a \\", "FROM --a \\", "ARG A=$A$A \\", "FROM a$A$B$C$D$E$F\nARG A=1 B=1 C=1 D=1 E=1 F=1"]
)
def test_a_mebibyte_of_anything_is_judged_soon(line: str) -> None:
    text = f"{line}\n" * (1024**2 // (len(line) + 1))
    started = time.process_time()
    with contextlib.suppress(SourceRejected):
        check(text, "box")
    assert time.process_time() - started < 20
