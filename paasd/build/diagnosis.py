"""Reads what a failed step of a build printed and says what to do: a table from patterns to hints.

The entries of one tool stand together; the first that matches in the order of the table wins, so the precise ones come
before the general ones. Each pattern is looked for in all lines kept of the step, joined by line ends; `{0}`, `{1}` in
a hint are the pattern's groups. What is printed may be meant to keep a pattern busy: begin each with fixed text or with
`(?<!\\S)`, and let nothing that may be anything stand before more of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from paasd.build.tool_failures import TOOL_FAILURES

_TABLE_OF_TOOLS: dict[str, list[tuple[str, str]]] = {
    "npm": [
        (
            r"npm ci` can only install packages when your package\.json and (\S+?)(?: or \S+)? are in sync",
            "The lockfile does not fit package.json: run `npm install`, commit package-lock.json, push again.",
        ),
        (
            r"npm (?:error|ERR!) notarget No matching version found for (\S+?)\.?(?:\n|$)",
            "There is no version {0}: correct it in package.json, run `npm install`, commit package-lock.json as well.",
        ),
        (
            r"npm (?:error|ERR!) 404 +(?:The requested resource )?'?((?:@[^\s/]+/)?[^\s@']+)@[^\s']*'? "
            r"(?:is not in|could not be found)",
            "The registry has no package {0}: correct its name in package.json; if it is private, set its registry and"
            " token in .npmrc.",
        ),
        (
            r"npm (?:error|ERR!) code E40[13]\b",
            "The registry refused access: give the token of a private registry in ~/.npmrc of the box, or in .npmrc.",
        ),
        (
            r"Could not resolve dependency:\nnpm (?:error|ERR!) (?:[a-zA-Z]+ )?(\S+) from (\S+)",
            "{1} wants {0}, and package.json wants another version: align them, or allow it with legacy-peer-deps=true"
            " in .npmrc.",
        ),
        (
            r"npm (?:error|ERR!) notsup Required: (\{[^\n]*\})",
            "Node.js is not of a version that a package requires ({0}): set engines.node in package.json.",
        ),
        (
            r"npm (?:error|ERR!) Missing script: \"([^\"]+)\"",
            "package.json has no script {0}: add it, or correct the command that runs it.",
        ),
    ],
    "Yarn": [
        (
            r"Your lockfile needs to be updated, but yarn was run with",
            "yarn.lock does not fit package.json: run `yarn install`, commit yarn.lock, push again.",
        ),
        (
            r"YN0028: [│ ]*The lockfile would have been",
            "yarn.lock does not fit package.json: run `yarn install`, commit yarn.lock, push again.",
        ),
        (
            r"Couldn't find package \"([^\"]+)\"",
            "The registry has no package {0}: correct its name in package.json, run `yarn install`, commit both files.",
        ),
        (
            r"Couldn't find any versions for \"([^\"]+)\" that matches \"([^\"]+)\"",
            "There is no version {0}@{1}: correct it in package.json, run `yarn install`, commit yarn.lock as well.",
        ),
        (
            r"YN0035: [│ ]*((?:@[^\s/@]+/)?[^\s/@:]+)@npm:",
            "The registry has no package {0}: correct its name in package.json, run `yarn install`, commit both files.",
        ),
        (
            r"YN0082: [│ ]*(\S+): No candidates found",
            "There is no version {0}: correct it in package.json, run `yarn install`, commit yarn.lock as well.",
        ),
        (
            r"The engine \"node\" is incompatible with this module\. Expected version \"([^\"]+)\"",
            "A package requires Node.js {0}: set engines.node in package.json.",
        ),
    ],
    "pnpm": [
        (
            r"ERR_PNPM_OUTDATED_LOCKFILE",
            "pnpm-lock.yaml does not fit package.json: run `pnpm install`, commit pnpm-lock.yaml, push again.",
        ),
        (
            r"ERR_PNPM_LOCKFILE_BREAKING_CHANGE|ERR_PNPM_LOCKFILE_CONFIG_MISMATCH",
            "pnpm-lock.yaml is of another version of pnpm: name yours as packageManager in package.json.",
        ),
        (
            r"ERR_PNPM_NO_MATCHING_VERSION\s+No matching version found for (\S+)",
            "There is no version {0}: correct it in package.json, run `pnpm install`, commit pnpm-lock.yaml as well.",
        ),
        (
            r"(?<!\S)((?:@[^\s/]{1,214}/)?[^\s/]{1,214}) is not in the npm registry",
            "The registry has no package {0}: correct its name in package.json, run `pnpm install`, commit both files.",
        ),
        (
            r"Expected version: ([^\n(]+)",
            "A package requires Node.js {0}: set engines.node in package.json.",
        ),
    ],
    "Bun": [
        (
            r"lockfile had changes, but lockfile is frozen",
            "bun.lock does not fit package.json: run `bun install`, commit bun.lock, push again.",
        ),
        (
            r"error: ((?:@[^\s/@]+/)?[^\s/@]+)@\S{0,99} failed to resolve",
            "The registry has no such package or version of {0}: correct it in package.json.",
        ),
    ],
    "Node.js": [
        (
            r"the build made no folder '?([^'\n]+?)'?(?:\n|$)",
            "The site was expected in {0}: set the folder your build really writes as output directory.",
        ),
        (
            r"JavaScript heap out of memory",
            "Node.js ran out of memory: give the build NODE_OPTIONS=--max-old-space-size=2048, or raise build.memory.",
        ),
        (
            r"(?<!\S)([^\s:(]{1,200}\.tsx?)(?:\((\d+),\d+\)|:(\d+):\d+)[: -]{1,9}error TS\d+: ([^\n]+)",
            "TypeScript: {3} ({0}, line {1}{2}).",
        ),
        (
            r"ailed to resolve import \"([^\"]+)\"|Can't resolve '([^']+)'",
            "{0}{1} cannot be found: is it in package.json, and are the letters of the path as in the repository?",
        ),
        (
            r"Cannot find (?:module|package) '([^']+)'",
            "{0} cannot be found: add it to the dependencies of package.json, or correct the path.",
        ),
    ],
    "pip": [
        (
            r"Retry\(total=0,[^\n]*\n(?:[^\n]*\n)?ERROR: Could not find a version",
            "The package index was not reached: can this box reach it? See index-url and proxy in its pip.conf.",
        ),
        (
            r"No matching distribution found for (\S+)",
            "There is no {0} for this version of Python: correct its name or version in the file that lists it.",
        ),
        (
            r"The conflict is caused by:\s{0,9}\n {0,9}([^\n]+)\n {0,9}([^\n]+)",
            "Two requirements exclude each other: {0}; {1}. Loosen one of them.",
        ),
        (
            r"ERROR: Package '(\S+)' requires a different Python: (\S+) not in '([^'\n]+)'",
            "{0} runs on Python {2} only: name such a version in .python-version.",
        ),
        (
            r"THESE PACKAGES DO NOT MATCH THE HASHES",
            "A downloaded package is not the one that was locked: lock again, and look at what changed first.",
        ),
        (
            r"fatal error: (\S{1,99}): No such file or directory",
            "The header {0} is missing: name the package that has it (often lib…-dev) in a file Aptfile.",
        ),
        (
            r"(pg_config|mysql_config|pkg-config|[a-z0-9]{1,30}-config)(?: executable)? (?:is )?not found",
            "{0} is missing: name the package that has it (often lib…-dev) in a file Aptfile.",
        ),
        (
            r"(?:Failed to build|Failed building wheel for) '?([A-Za-z0-9._-]{1,99})",
            "{0} could not be compiled: the lines above say what is missing; name packages for it in a file Aptfile.",
        ),
    ],
    "uv": [
        (
            r"The lockfile at `uv\.lock` needs to be updated",
            "uv.lock does not fit pyproject.toml: run `uv lock`, commit uv.lock, push again.",
        ),
        (
            r"Because (\S+) was not found in the package registry",
            "The registry has no package {0}: correct its name in pyproject.toml, run `uv lock`, commit uv.lock.",
        ),
        (
            r"Because there (?:are|is) no versions? of (\S+)",
            "There is no such version of {0}: correct it in pyproject.toml, run `uv lock`, commit uv.lock.",
        ),
        (
            r"Because only (\S+?)(?:\[\S+)? is available",
            "There is no such version of {0}: correct it in pyproject.toml, run `uv lock`, commit uv.lock.",
        ),
    ],
    "Poetry": [
        (
            r"pyproject\.toml changed significantly since poetry\.lock was last generated",
            "poetry.lock does not fit pyproject.toml: run `poetry lock`, commit poetry.lock, push again.",
        ),
    ],
    "pdm": [
        (
            r"Lockfile doesn't satisfy the project requirements|Lock file hash doesn't match",
            "pdm.lock does not fit pyproject.toml: run `pdm lock`, commit pdm.lock, push again.",
        ),
    ],
    "Pipenv": [
        (
            r"Pipfile\.lock is out-of-date",
            "Pipfile.lock does not fit the Pipfile: run `pipenv lock`, commit Pipfile.lock, push again.",
        ),
    ],
    **TOOL_FAILURES,
    "system": [
        (
            r"ENOSPC|No space left on device",
            "The disk is full: free some of it with `paasd cleanup`, or let the build write less.",
        ),
        (
            r"(?:ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ERR_SOCKET_TIMEOUT|Temporary failure in name resolution"
            r"|no such host|Could(?:n't| not) re(?:solve|ach) host)",
            "A server was not reached: can this box reach the package registry, and are its proxy settings right?",
        ),
        (
            r"SELF_SIGNED_CERT|UNABLE_TO_(?:GET_ISSUER|VERIFY)|CERT_HAS_EXPIRED|certificate verify failed",
            "A certificate is not trusted: name the box's certificates as build.ca_bundle in paasd.toml.",
        ),
        (
            r"(?:^|\n)(?:/bin/)?sh: (?:line )?\d+: ([\w./@-]+): not found",
            "The command {0} does not exist in the build: is the package that brings it among the dependencies?",
        ),
    ],
}
_TABLE = [(re.compile(pattern), hint) for part in _TABLE_OF_TOOLS.values() for pattern, hint in part]
_LONGEST_GROUP = 200
_KILLED = "137"


def hint(exit_code: str, lines: Sequence[str]) -> str:
    """What to do, or nothing when the lines say nothing known."""
    if exit_code == _KILLED:
        return "The step was killed, most likely for want of memory: make it need less, or raise build.memory."
    text = "\n".join(lines)
    for pattern, advice in _TABLE:
        if match := pattern.search(text):
            return advice.format(*((group or "")[:_LONGEST_GROUP] for group in match.groups()))
    return ""
