"""Ruby repositories of several shapes, pushed and fetched."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from tests.box import Box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(500)]

ANY_VERSION = (
    '!ruby/object:Gem::Requirement\n  requirements:\n  - - ">="\n    - !ruby/object:Gem::Version\n      version: "0"'
)
GEMSPEC = f"""\
--- !ruby/object:Gem::Specification
name: greet
version: !ruby/object:Gem::Version
  version: 1.0.0
platform: ruby
authors: [t]
date: 2020-01-01 00:00:00.000000000 Z
dependencies: []
summary: greets
files: [lib/greet.rb]
require_paths: [lib]
required_ruby_version: {ANY_VERSION}
required_rubygems_version: {ANY_VERSION}
rubygems_version: 3.3.15
specification_version: 4
"""
LOCK = """\
GEM
  remote: https://rubygems.org/
  specs:
    greet (1.0.0)

PLATFORMS
  ruby

DEPENDENCIES
  greet

RUBY VERSION
   ruby 3.1.0p0

BUNDLED WITH
   2.3.10
"""
APP = """\
require "greet"
require "socket"

server = TCPServer.new("0.0.0.0", Integer(ENV.fetch("PORT")))
loop do
  socket = server.accept
  nil until socket.gets.strip.empty?
  body = "#{Greet.hello} from Ruby #{RUBY_VERSION[0, 3]}"
  socket.write "HTTP/1.1 200 OK\\r\\nContent-Length: #{body.size}\\r\\nConnection: close\\r\\n\\r\\n#{body}"
  socket.close
end
"""


def archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def vendored() -> dict[str, str | bytes]:
    """An app with one gem, in vendor/cache."""
    code = archive({"lib/greet.rb": b'module Greet\n  def self.hello = "Vendored"\nend\n'})
    parts = {"metadata.gz": gzip.compress(GEMSPEC.encode()), "data.tar.gz": gzip.compress(code)}
    return {
        "Gemfile": 'source "https://rubygems.org"\nruby "3.1.0"\ngem "greet"\n',
        "Gemfile.lock": LOCK,
        "vendor/cache/greet-1.0.0.gem": archive(parts),
        "app.rb": APP,
    }


def test_the_example_and_a_change_of_it(box: Box) -> None:
    repository = box.repository(example="ruby")
    pushed = box.push(repository, "ruby-example")
    assert pushed.status == 0, pushed
    assert "no Gemfile: the distribution's Rack, Puma and Sinatra are there" in pushed.all
    assert box.get("ruby-example").text == "Hello from paasd, release v1\n"
    repository.commit({"views/hello.erb": "Bonjour, <%= release %>\n"})
    assert box.push(repository, "ruby-example").status == 0
    assert box.get("ruby-example").text == "Bonjour, v2\n"


def test_cached_gems_and_a_pinned_patch_level(box: Box) -> None:
    pushed = box.push(box.repository(vendored()), "ruby-bundler")
    assert pushed.status == 0, pushed
    assert "Gemfile: 3.1.0, so Ruby 3.1, in the suite's own patch level" in pushed.all
    assert "exactly these gems are installed, all from vendor/cache" in pushed.all
    assert box.get("ruby-bundler").text == "Vendored from Ruby 3.1"


def test_sinatra_with_a_procfile_and_no_gemfile(box: Box) -> None:
    repository = box.repository(
        {
            "hello.rb": 'require "sinatra"\n\nget("/") { "sinatra in #{settings.environment}" }\n',
            "config.ru": 'require "./hello"\nrun Sinatra::Application\n',
            "Procfile": "web: puma -p $PORT\n",
            ".ruby-version": "3.3.1\n",
        }
    )
    pushed = box.push(repository, "ruby-sinatra")
    assert pushed.status == 0, pushed
    assert box.get("ruby-sinatra").text == "sinatra in production"


def test_what_is_wrong_is_said(box: Box) -> None:
    broken = {"app.rb": "def half(\n"}
    pushed = box.push(box.repository(broken), "ruby-wrong")
    assert pushed.status != 0
    assert "syntax error" in pushed.all and "app.rb:1" in pushed.all
    stale = vendored()
    stale["Gemfile"] = str(stale["Gemfile"]) + 'gem "sinatra"\n'
    pushed = box.push(box.repository(stale), "ruby-wrong")
    assert pushed.status != 0
    assert "Gemfile.lock does not fit the Gemfile (sinatra): run `bundle install`" in pushed.all
    pushed = box.push(box.repository(vendored() | {"Gemfile": 'ruby "~> 2.7"\n'}), "ruby-wrong")
    assert pushed.status != 0
    assert "Gemfile asks for Ruby ~> 2.7, which cannot be had here" in pushed.all
    assert "There are: 3.3, 3.1" in pushed.all
