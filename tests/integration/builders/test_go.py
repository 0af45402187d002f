"""Go repositories of several shapes, pushed and fetched."""

from __future__ import annotations

import pytest

from tests.box import Box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(500)]

SERVER = """\
package main

import (
	"net/http"
	"os"
%s)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(%s)) })
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
"""


def server(expression: str, *imports: str) -> str:
    return SERVER % ("".join(f'\t"{name}"\n' for name in imports), expression)


def test_the_example_and_a_change_of_it(box: Box) -> None:
    repository = box.repository(example="go")
    pushed = box.push(repository, "go-example")
    assert pushed.status == 0, pushed
    assert "go.mod: go 1.24, so Go 1.24" in pushed.all
    assert "also process types, not started until they are scaled: migrate" in pushed.all
    assert box.get("go-example").text == "Hello from paasd, release v1\n"
    repository.commit({"templates/hello.txt": "Bonjour, {{.}}\n"})
    assert box.push(repository, "go-example").status == 0
    assert box.get("go-example").text == "Bonjour, v2\n"
    assert "nothing to migrate" in box.ssh("run", "go-example", "migrate").out
    listing = box.ssh("run", "go-example", "find", ".", "-type", "f").out.split()
    assert sorted(listing) == ["./app.json", "./bin/migrate", "./bin/web", "./go.mod", "./templates/hello.txt"]


def test_vendored_modules_and_a_procfile_that_says_go_run(box: Box) -> None:
    repository = box.repository(
        {
            "go.mod": "module example.com/site\n\ngo 1.22\n\nrequire example.com/greet v1.0.0\n",
            "main.go": server('greet.Hello() + os.Args[1] + " in " + now()', "time", "example.com/greet")
            + 'func now() string { l, _ := time.LoadLocation("Europe/Paris"); return l.String() }\n',
            "vendor/modules.txt": "# example.com/greet v1.0.0\n## explicit; go 1.21\nexample.com/greet\n",
            "vendor/example.com/greet/greet.go": 'package greet\n\nfunc Hello() string { return "vendored " }\n',
            "Procfile": "web: go run . twice\n",
        }
    )
    pushed = box.push(repository, "go-vendored")
    assert pushed.status == 0, pushed
    assert "vendor/modules.txt: dependencies come from vendor/" in pushed.all
    assert box.get("go-vendored").text == "vendored twice in Europe/Paris"
    assert "there is no Go toolchain at run time" in box.ssh("logs", "go-vendored").out


def test_a_plain_file_that_uses_c(box: Box) -> None:
    main = server("strconv.Itoa(int(C.twice(21)))", "strconv").replace(
        "import (", '/*\nstatic int twice(int x) { return 2 * x; }\n*/\nimport "C"\n\nimport ('
    )
    pushed = box.push(box.repository({"main.go": main}), "go-plain")
    assert pushed.status == 0, pushed
    assert "no go.mod: only the standard library" in pushed.all
    assert 'main.go imports "C", so CGO_ENABLED=1' in pushed.all
    assert box.get("go-plain").text == "42"


def test_what_is_wrong_is_said(box: Box) -> None:
    files = {"go.mod": "module x\n\ngo 1.24\n", "main.go": server("undefinedName")}
    pushed = box.push(box.repository(files), "go-wrong")
    assert pushed.status != 0
    assert "Go: undefined: undefinedName (./main.go:9)" in pushed.all
    required = {"go.mod": "module x\n\ngo 1.24\n\nrequire acme.example/words v1.0.0\n"}
    stale = {"vendor/modules.txt": "# acme.example/words v0.9.0\n"}
    pushed = box.push(box.repository(files | required | stale), "go-wrong")
    assert pushed.status != 0 and "vendor/ does not fit go.mod: run `go mod vendor`" in pushed.all, pushed
    pushed = box.push(box.repository(files | {"go.mod": "module x\n\ngo 1.99\n"}), "go-wrong")
    assert pushed.status != 0
    assert "go.mod asks for Go 1.99 ('go 1.99'), which cannot be had here" in pushed.all
    assert "There are: 1.27, 1.26" in pushed.all
