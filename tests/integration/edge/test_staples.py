"""What clients are shown of what an authority says (OCSP), by handshakes of openssl and curl with a real edge."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509

from paasd.models import Secret
from paasd.route import pem
from paasd.route.edge_staples import Staple
from paasd.route.edge_tls import Served
from tests.integration.edge.conftest import Bench, until
from tests.ocsp import answer, staple_shown
from tests.tls import Authority


@pytest.fixture(scope="module")
def middle() -> Authority:
    return Authority.new("Middle", Authority.new())


@pytest.fixture
def roots(middle: Authority, tmp_path: Path) -> Path:
    assert middle.issuer is not None
    path = tmp_path / "roots.pem"
    path.write_text(middle.issuer.pem)
    return path


def served(middle: Authority, id: str, *names: str, least: str = "1.3") -> tuple[Served, x509.Certificate]:
    key, chain = middle.leaf(names)
    return Served(id, names, Secret(key + chain), least), pem.read_chain(chain)[0]


def staple(leaf: x509.Certificate, middle: Authority, lasts: float = 86400.0) -> Staple:
    return Staple(int(time.time() + lasts), answer(leaf, middle, lasts=lasts))


async def shown(bench: Bench, name: str, *options: str) -> bool:
    return await asyncio.to_thread(staple_shown, bench.http.https_port, name, *options)


async def curl_is_content(bench: Bench, name: str, roots: Path) -> bool:
    """It checks the answer, and refuses to go on without one."""
    port = bench.http.https_port
    command = ["curl", "-s", "-o", "/dev/null", "--cert-status", "--cacert", str(roots)]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--resolve", f"{name}:{port}:127.0.0.1", f"https://{name}:{port}/"],
        timeout=20,
        check=False,
    )
    assert done.returncode in (0, 91), done  # CURLE_SSL_INVALIDCERTSTATUS
    return done.returncode == 0


async def test_a_staple_is_shown_to_who_asks_with_its_certificate_alone(
    bench: Bench, middle: Authority, roots: Path
) -> None:
    (one, leaf), (two, _) = served(middle, "one", "one.test", least="1.2"), served(middle, "two", "two.test")
    for name in ("one", "two"):
        await bench.serve(name, await bench.apps.saying(name))
    await bench.edge.tls.sync([one, two], {})
    assert not await shown(bench, "one.test") and not await curl_is_content(bench, "one.test", roots)
    await bench.edge.tls.put_staple("one", staple(leaf, middle))
    for version in ("-tls1_2", "-tls1_3"):
        assert await shown(bench, "one.test", version)
    assert await curl_is_content(bench, "one.test", roots)
    assert not await shown(bench, "two.test"), "another one's answer"
    revoked = Staple(int(time.time() + 9000), b"void", revoked=True)
    await bench.edge.tls.put_staple("one", revoked)
    assert not await shown(bench, "one.test") and await bench.edge.tls.staple("one") == revoked
    await bench.edge.tls.put_staple("one", staple(leaf, middle))
    assert await shown(bench, "one.test")
    await bench.edge.tls.remove_staple("one")
    assert not await shown(bench, "one.test") and await bench.edge.tls.staple("one") is None


async def test_never_beyond_its_time(bench: Bench, middle: Authority) -> None:
    (one, leaf), name = served(middle, "one", "one.test"), "one.test"
    await bench.serve("one", await bench.apps.saying("hello"))
    await bench.edge.tls.put(one)
    await bench.edge.tls.put_staple("one", short := staple(leaf, middle, 5))
    assert await shown(bench, name)

    async def gone() -> bool:
        return not await shown(bench, name)

    await until(gone)
    assert time.time() > short.until - 1
    await bench.kill_nginx()
    await bench.edge.ensure_running()
    assert not await shown(bench, name), "nor after a start of Nginx"
    await bench.edge.tls.sync([one], {})
    assert not await shown(bench, name)


async def test_nginx_alone_shows_what_is_whole_in_the_files(bench: Bench, middle: Authority) -> None:
    names = ("whole", "lost", "short", "mixed", "void")
    everything = {}
    for name in names:
        await bench.serve(name, await bench.apps.saying(name))
        everything[name], leaf = served(middle, name, f"{name}.test")
        await bench.edge.tls.put(everything[name])
        await bench.edge.tls.put_staple(name, staple(leaf, middle))
    await bench.edge.tls.put_staple("void", Staple(int(time.time() + 9000), b"void", revoked=True))
    files = bench.directory / "tls"
    assert {path.stat().st_mode & 0o777 for path in files.glob("*.ocsp")} == {0o600}
    await bench.kill_nginx()
    (files / "lost.ocsp").unlink()
    text = (files / "short.ocsp").read_text()
    (files / "short.ocsp").write_text(text[: len(text) // 2])
    (files / "mixed.ocsp").write_text((files / "whole.ocsp").read_text())
    assert await bench.edge.ensure_running()
    assert {name for name in names if await shown(bench, f"{name}.test")} == {"whole"}
    await bench.edge.tls.sync(everything.values(), {})
    assert {path.stem for path in files.glob("*.ocsp")} == {"whole", "void"}
    assert await shown(bench, "whole.test") and not await shown(bench, "void.test")
    await bench.edge.tls.sync([everything["void"]], {})
    assert {path.stem for path in files.glob("*.ocsp")} == {"void"}
    await bench.edge.tls.remove("void")
    assert not list(files.glob("*.ocsp"))


async def test_what_is_live_is_put_right_by_the_files(bench: Bench, middle: Authority) -> None:
    one, leaf = served(middle, "one", "one.test")
    await bench.serve("one", await bench.apps.saying("hello"))
    await bench.edge.tls.put(one)
    await bench.edge.tls.put_staple("one", staple(leaf, middle))
    for text in ("", "good", "good 9999999999 0\nAAAA\n", "revoked 1 0\nAAAA\n", "x" * 10**6):
        await bench.edge._control.put("staples/one", text)
        assert not await shown(bench, "one.test"), "garbage is shown"
    await bench.edge.tls.sync([one], {})
    assert await shown(bench, "one.test")
