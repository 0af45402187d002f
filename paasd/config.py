"""The daemon's own configuration: `paasd.toml`, overridden by command-line options.

`Config` is the only place that knows defaults and the layout of the data directory. docs/config.md documents every
setting and a test keeps it complete.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class HttpConfig:
    port: int = 80
    """Where the edge listens for HTTP."""
    https_port: int = 443
    """Where it listens for HTTPS; 0 is nowhere."""
    address: str = "0.0.0.0"
    """Address of the edge's listeners."""
    domain: str = "localhost"
    """Apps are reached at `<app>.<domain>` until they have domains of their own."""
    panel: str = ""
    """Host name of paasd itself, its panel and API; no app may have it."""
    public_addresses: str = ""
    """Addresses under which the internet reaches this box, separated by spaces, where they are not its own (NAT)."""
    resolvers: str = ""
    """Name servers that the edge asks for the host of `auth.forward`, as `address` or `address:port` between spaces;
    empty for those in /etc/resolv.conf."""
    ca_bundle: str = ""
    """Roots (PEM) that the edge trusts there, such as /etc/ssl/certs/ca-certificates.crt; empty for none: only apps of
    the box can be asked. Nginx reads them for each server block, at a tenth of a second for all roots of a system."""
    ocsp_to: str = ""
    """Networks where the OCSP responders of certificates may be beside public addresses; never the apps' own."""
    cache_size: int = 1024**3
    """Bytes of answers that the edge keeps for apps that have `cache on`, of all together."""
    client_rate: int = 0
    """Requests a second that one client may make of all apps together, and twice as many at once; 0 for any number. A
    client is an address, or a /64 of IPv6."""
    client_connections: int = 1024
    """Requests and WebSockets that one client may have at a time at all apps together; 0 for any number."""


@dataclass(frozen=True)
class AcmeConfig:
    email: str = ""
    """Where the authority writes to. Once it is set, you agree to the authority's terms, and apps get certificates for
    their public names by themselves."""
    directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    """The authority's ACME directory."""
    staging: bool = False
    """Use Let's Encrypt's test directory, whose certificates browsers refuse, to try things out."""
    ca_bundle: str = ""
    """File of the roots (PEM) that the directory's own certificate is checked with; empty for the host's."""
    eab_kid: str = ""
    """Key identifier of an external account binding, where the authority wants one."""
    eab_key_file: str = ""
    """File with the key of that binding, base64url."""
    timeout: float = 15.0
    """Seconds that the authority may take for one answer."""
    dns: str = ""
    """How DNS-01 records are set: `rfc2136`, `hook`, or empty for not at all."""
    dns_server: str = ""
    """Name server that takes updates (RFC 2136), as `host` or `host:port`."""
    dns_zone: str = ""
    """Zone that is updated; empty to ask the server for it."""
    dns_key_name: str = ""
    """Name of the TSIG key."""
    dns_key_file: str = ""
    """File with the TSIG key, base64."""
    dns_key_algorithm: str = "hmac-sha256"
    """Algorithm of the TSIG key."""
    dns_hook: str = ""
    """Program that is called as `hook add|remove NAME VALUE` to set and remove a TXT record."""
    dns_hook_timeout: float = 120.0
    """Seconds that it may take."""
    dns_wait: float = 10.0
    """Seconds until a record is everywhere."""


@dataclass(frozen=True)
class SshConfig:
    port: int = 2222
    """Where SSH listens."""
    address: str = "0.0.0.0"
    """Address of the SSH listener."""
    transport: str = "embedded"
    """`embedded` (paramiko in the daemon) or `openssh` (our own sshd process)."""
    login_grace: float = 30.0
    """Seconds a client may take to authenticate."""
    max_unauthenticated: int = 100
    """Connections that have not authenticated yet, in total."""
    max_per_source: int = 10
    """The same from one address."""
    forward_idle: float = 900.0
    """Seconds without a byte after which a forwarded connection (`ssh -L`, `ps:forward`) is closed."""


@dataclass(frozen=True)
class PushConfig:
    create_apps: bool = True
    """Whether a push to an unknown name creates the app."""
    max_size: int = 2 * 1024**3
    """Bytes of one push, checked by Git before anything is stored; also of an archive."""
    sync_from: str = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"
    """Networks that `git:sync` may fetch from beside public addresses; never the apps' own."""


@dataclass(frozen=True)
class BuildConfig:
    suite: str = "bookworm"
    """Suite of the distribution that base images are made of; on Ubuntu always the host's own."""
    concurrency: int = 0
    """Builds at a time; 0 derives it from cores and memory."""
    timeout: int = 1800
    """Seconds a build may take."""
    idle_timeout: int = 600
    """Seconds a build may print nothing."""
    ca_bundle: str = "/etc/ssl/certs/ca-certificates.crt"
    """Host certificates trusted inside builds; empty to leave them out."""
    log_limit: int = 10 * 1024**2
    """Bytes kept of one build's log."""
    memory: int = 0
    """Bytes of memory of all builds together, without swap; 0 leaves the rest a quarter of the box, at least 1 GiB."""
    cpus: float = 0.0
    """Cores of all builds together; 0 leaves a quarter of a core to the rest."""
    pids: int = 4096
    """Processes and threads of all builds together."""
    cgroup: str = "docker/buildkit"
    """Control group that the engine puts builds under (dockerd's `--cgroup-parent`, then `buildkit`)."""
    firewall: bool = True
    """Keep the engine's default network, where builds run, away from the host's services and the metadata address."""
    host_services: str = ""
    """What builds may reach on this host all the same, as `address:port`, separated by spaces."""
    official_images: str = ""
    """Registry and path of the languages' official images, as `docker.io/library`, for versions that the distribution
    has not; empty to refuse these."""
    cache_limit: int = 0
    """Bytes of build cache kept; 0 takes a tenth of the engine's disk, at most 10 GiB."""


@dataclass(frozen=True)
class RunConfig:
    subnet_pool: str = "10.201.0.0/16"
    """Each project gets a /24 of it."""
    memory: int = 512 * 1024**2
    """Bytes of memory per instance, without swap."""
    cpus: float = 1.0
    """Cores per instance."""
    pids: int = 256
    """Processes and threads per instance."""
    max_memory: int = 0
    """Bytes that `resource:limit` may give an instance; 0 is the memory of the box."""
    max_cpus: float = 0.0
    """Cores that it may give; 0 is all of the box."""
    start_timeout: float = 60.0
    """Seconds all instances of a deployment have to become healthy."""
    release_timeout: int = 600
    """Seconds that the `release:` task of a Procfile and each script of app.json may take."""
    one_off_timeout: int = 86400
    """Seconds a one-off command may take, unless it says otherwise."""
    drain: float = 30.0
    """Seconds an old instance gets after the switch to finish its requests."""
    stream_drain: float = 300.0
    """The same for WebSockets and event streams."""
    watch: float = 300.0
    """Seconds after a deployment in which crashes and errors bring the release before back; 0 turns that off."""
    stop_timeout: int = 30
    """Seconds between SIGTERM and SIGKILL."""
    port: int = 5000
    """$PORT of web instances."""
    autoscale_interval: float = 15.0
    """Seconds between two looks at what autoscaled apps use."""
    hooks_to: str = ""
    """Networks that `onFailure` of a health check may post to beside public addresses; never the apps' own."""
    firewall: bool = True
    """Keep instances away from the host's services and the metadata address (needs CAP_NET_ADMIN)."""

    def subnets(self) -> list[str]:
        """The /24 networks of the pool, in order."""
        return [str(net) for net in ipaddress.IPv4Network(self.subnet_pool).subnets(new_prefix=24)]


@dataclass(frozen=True)
class KeepConfig:
    releases: int = 10
    """Releases per app whose images are kept as rollback targets."""
    builds: int = 50
    """Build logs per app."""
    deployments: int = 500
    """Deployments listed per app; releases that none of them tells of go with them."""
    runs: int = 50
    """One-off commands per app whose outcome is kept, and runs per entry of its schedule."""
    events: int = 10_000
    """Events of the whole box."""
    jobs: int = 1000
    """Jobs of the whole box that are done; as many again that were given up."""
    free_bytes: int = 2 * 1024**3
    """Bytes. New builds are refused below this much free disk; builds under way are ended below half of it."""


@dataclass(frozen=True)
class JobsConfig:
    build: int = 2
    """Jobs of the queue `build` at a time."""
    deployment: int = 4
    """Jobs of the queue `deployment` at a time."""
    metrics: int = 2
    """Jobs of the queue `metrics` at a time."""
    notification: int = 4
    """Jobs of the queue `notification` at a time."""
    cleanup: int = 2
    """Jobs of the queue `cleanup` at a time."""
    cron: int = 8
    """Jobs of the queue `cron` at a time; each starts one command and does not wait for it."""
    lease: float = 30.0
    """Seconds a running job is nobody else's; renewed while it runs."""
    back_off: float = 2.0
    """Seconds until a failed job is tried again; doubled with each attempt."""
    back_off_limit: float = 600.0
    """Seconds it is at most."""


@dataclass(frozen=True)
class Config:
    data_dir: Path
    label: str = "paasd"
    """Marks every engine object of this paasd, so that several can share an engine."""
    docker_host: str = "unix:///var/run/docker.sock"
    """The engine's API."""
    log_level: str = "info"
    """debug, info, warning or error."""
    admin_key: str = ""
    """File of the first administrator's public key, read at start."""
    http: HttpConfig = field(default_factory=HttpConfig)
    acme: AcmeConfig = field(default_factory=AcmeConfig)
    ssh: SshConfig = field(default_factory=SshConfig)
    push: PushConfig = field(default_factory=PushConfig)
    build: BuildConfig = field(default_factory=BuildConfig)
    run: RunConfig = field(default_factory=RunConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    keep: KeepConfig = field(default_factory=KeepConfig)

    @property
    def database(self) -> Path:
        return self.data_dir / "state.db"

    @property
    def run_dir(self) -> Path:
        """Sockets and pid files. Socket paths are limited to 107 bytes, so keep the data directory's path short."""
        return self.data_dir / "run"

    @property
    def api_socket(self) -> Path:
        return self.run_dir / "api.sock"

    @property
    def repositories(self) -> Path:
        return self.data_dir / "repositories"

    @property
    def build_logs(self) -> Path:
        return self.data_dir / "logs" / "builds"

    @property
    def edge_dir(self) -> Path:
        return self.data_dir / "edge"

    @property
    def keys_dir(self) -> Path:
        """Host keys and the master key."""
        return self.data_dir / "keys"
