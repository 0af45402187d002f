"""Which package manager installs, in which version, and its commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from paasd.build.plan import Source
from paasd.errors import SourceRejected
from paasd.names import shown

from .manifest import Package

# In the order in which they win when a repository holds several.
LOCKFILES = {
    "pnpm-lock.yaml": "pnpm",
    "bun.lock": "bun",
    "bun.lockb": "bun",
    "yarn.lock": "yarn",
    "npm-shrinkwrap.json": "npm",
    "package-lock.json": "npm",
}
TITLES = {"npm": "npm", "yarn": "Yarn", "pnpm": "pnpm", "bun": "Bun"}
_FIELD = re.compile(r"(npm|pnpm|yarn|bun)@\^?(\d+(?:\.\d+(?:\.\d+(?:-[0-9A-Za-z.-]+)?)?)?)(?:\+.*)?")
_SERIES = re.compile(r"[~^=v]*(\d+(?:\.\d+){0,2})(?:\.[x*])*")
_BERRY_LOCK = re.compile(r"^__metadata:\s*\n\s+version: (\d+)", re.MULTILINE)
_PNPM_LOCK = re.compile(r"^lockfileVersion: ['\"]?(\d+)", re.MULTILINE)
_LINKER = re.compile(r"^nodeLinker:\s*[\"']?([\w-]+)", re.MULTILINE)
_PNPM_OF_LOCK = {5: "7", 6: "8", 9: "10"}
_NEWEST_PNPM = "12"


@dataclass(frozen=True)
class PackageManager:
    name: str
    version: str
    """What npm is asked for: a version or series; empty for the npm that comes with Node.js."""
    lockfile: str
    """Empty without one."""
    reasons: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """For all its commands."""

    @property
    def title(self) -> str:
        return f"{TITLES[self.name]} {self.version}".strip()

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0] or 0)

    @property
    def package(self) -> str:
        """What `npm install --global` is asked for; empty when nothing need be installed."""
        if not self.version:
            return ""
        name = "@yarnpkg/cli-dist" if self.name == "yarn" and self.major > 1 else self.name
        return f"{name}@{self.version}"

    @property
    def keeps_to_modules(self) -> bool:
        """Whether all it writes is in node_modules; Yarn since 2 wants its own notes beside it to run a script."""
        return self.name != "yarn" or self.major == 1

    @property
    def caches(self) -> dict[str, str]:
        return {
            "npm": {"/root/.npm": "npm"},
            "pnpm": {"/root/.pnpm-store": "pnpm"},
            "yarn": {"/root/.cache/yarn": "yarn"} if self.major == 1 else {"/root/.yarn/berry": "yarn-berry"},
            "bun": {"/root/.bun/install/cache": "bun"},
        }[self.name]

    @property
    def install(self) -> str:
        locked = bool(self.lockfile)
        return {
            "npm": f"npm {'ci' if locked else 'install'} --include=dev --no-audit --no-fund",
            "pnpm": f"pnpm install{_frozen(locked, ' --no-frozen-lockfile')} --prod=false {_STORE}",
            "yarn": self._yarn("--production=false"),
            "bun": f"bun install{_frozen(locked)}",
        }[self.name]

    @property
    def install_lean(self) -> str:
        """Installs what is needed at run time and nothing else; empty where that is no faster than pruning."""
        return "npm ci --omit=dev --no-audit --no-fund" if self.name == "npm" and self.lockfile else ""

    @property
    def prune(self) -> str:
        """Removes what is not needed at run time; empty when it cannot be done."""
        locked = bool(self.lockfile)
        focus = "yarn workspaces focus --all --production" if self.major >= 4 else ""
        return {
            "npm": "npm prune --omit=dev --ignore-scripts --no-audit --no-fund",
            "pnpm": f"pnpm install --prod{_frozen(locked)} --ignore-scripts --prefer-offline {_STORE}",
            "yarn": self._yarn("--production --ignore-scripts --prefer-offline") if self.major == 1 else focus,
            "bun": f"rm -rf node_modules; bun install --production --ignore-scripts{_frozen(locked)}",
        }[self.name]

    def run(self, script: str) -> str:
        return f"{self.name} run {script}"

    def run_everywhere(self, script: str) -> str:
        """Runs a script in the workspaces that have it; empty when this manager has no such command."""
        return {
            "npm": f"npm run {script} --workspaces --if-present",
            "pnpm": f"pnpm --recursive --if-present run {script}",
            "bun": f"bun run --filter '*' {script}",
        }.get(self.name, "")

    def _yarn(self, flags: str) -> str:
        if self.major > 1:
            return "yarn install --immutable" if self.lockfile else "yarn install --no-immutable"
        return f"yarn install{_frozen(bool(self.lockfile))} --non-interactive {flags}"


_STORE = "--store-dir=/root/.pnpm-store"


def _frozen(locked: bool, otherwise: str = "") -> str:
    return " --frozen-lockfile" if locked else otherwise


def choose(source: Source, root: Package) -> PackageManager:
    """Raises SourceRejected for a packageManager that is none."""
    present = [name for name in LOCKFILES if name in source.files]
    declared = root.text("packageManager")
    if declared:
        match = _FIELD.fullmatch(declared)
        if match is None:
            raise SourceRejected(
                f"packageManager in package.json is {shown(declared)}; paasd knows {', '.join(TITLES)}",
                hint='Write one with its version, such as "packageManager": "pnpm@9.15.0", or remove the line.',
            )
        name, version, why = match[1], match[2], f"packageManager in package.json says {shown(declared.split('+')[0])}"
    else:
        name, version = LOCKFILES[present[0]] if present else "npm", ""
        why = present[0] if present else "no lockfile"
    lockfile = next((file for file in present if LOCKFILES[file] == name), "")
    version = version or _version(source, root, name, lockfile)
    reasons = [
        f"{TITLES[name]} {version}".strip() + f" installs packages: {why}",
        *_about_locks(name, lockfile, present),
    ]
    env, note = _env(source, name, version)
    return PackageManager(name, version, lockfile, (*reasons, *note), env)


def _about_locks(name: str, lockfile: str, present: list[str]) -> list[str]:
    others = [file for file in present if file != lockfile]
    lines = []
    if others and lockfile:
        lines.append(
            f"{lockfile} is used and {', '.join(others)} ignored (pnpm, Bun, Yarn, npm win in this order unless "
            "packageManager in package.json says otherwise): remove what you do not use"
        )
    elif others:
        lines.append(f"{', '.join(others)} is not {TITLES[name]}'s and ignored")
    if not lockfile:
        lines.append(
            f"no lockfile of {TITLES[name]}: the newest versions package.json allows are installed; commit one"
        )
    return lines


def _version(source: Source, root: Package, name: str, lockfile: str) -> str:
    if name == "npm":
        return ""
    if match := _SERIES.fullmatch(root.table("volta").get(name) or root.table("engines").get(name, "")):
        return match[1]
    if name == "bun":
        return "1"
    text = _read(source, lockfile)
    if name == "pnpm":
        match = _PNPM_LOCK.search(text[:200])
        return _PNPM_OF_LOCK.get(int(match[1]), _NEWEST_PNPM) if match else "10"
    return _yarn_version(source, text)


def _yarn_version(source: Source, lock: str) -> str:
    if match := _BERRY_LOCK.search(lock[:1000]):
        return "2" if int(match[1]) < 5 else "3" if int(match[1]) < 8 else "4"
    return "4" if ".yarnrc.yml" in source.files and "yarn lockfile v1" not in lock[:200] else "1"


def _read(source: Source, path: str) -> str:
    """Lockfiles may be larger than what is read of a repository; then their version stays unknown."""
    try:
        return (source.read(path) or "") if path else ""
    except SourceRejected:
        return ""


def _env(source: Source, name: str, version: str) -> tuple[dict[str, str], tuple[str, ...]]:
    if name == "pnpm":
        return {"CI": "true"}, ()
    if name != "yarn" or version.partition(".")[0] == "1":
        return {}, ()
    env = {"YARN_GLOBAL_FOLDER": "/root/.yarn/berry", "YARN_ENABLE_TELEMETRY": "0"}
    if not any(path.startswith(".yarn/cache/") for path in source.files):
        env["YARN_ENABLE_GLOBAL_CACHE"] = "true"
    match = _LINKER.search(source.read(".yarnrc.yml") or "")
    if match and match[1] != "pnp":
        return env, ()
    note = "Plug'n'Play is not used here: Yarn installs into node_modules"
    return {**env, "YARN_NODE_LINKER": "node-modules"}, (note,)
