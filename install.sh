#!/usr/bin/env bash
# Install, upgrade or remove paasd on Debian 12, Debian 13 or Ubuntu 24.04. May be run again at any time.
# Package mirrors, proxies and certificates are those of the host's own configuration.
set -euo pipefail
umask 022

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PREFIX=/opt/paasd
PAASD=$PREFIX/venv/bin/paasd
PYTHON=$PREFIX/venv/bin/python
CONFIG_DIR=/etc/paasd
CONFIG=$CONFIG_DIR/paasd.toml
DATA_DIR=/var/lib/paasd
COMMAND=/usr/local/bin/paasd
COMPLETION=/etc/bash_completion.d/paasd
LOGROTATE=/etc/logrotate.d/paasd
UNIT=/etc/systemd/system/paasd.service
DAEMON_LOG=/var/log/paasd.log
LOG=/var/log/paasd-install.log
PACKAGES=(git openssh-client openssh-server nginx libnginx-mod-http-lua lua-cjson iptables mmdebstrap python3 python3-venv
  ca-certificates util-linux)

action=install demo='' admin_key='' settings=() job=''

usage() {
  cat <<USAGE
Usage: ./install.sh [options]
  --demo             push the Python example app afterwards and show what it answers
  --domain NAME      apps are reached at <app>.NAME (default: localhost)
  --admin-key FILE   public SSH key of the first administrator
  --http-port N      port of the apps (default: 80)
  --https-port N     port of the apps over TLS (default: 443)
  --ssh-port N       port of git push and of commands (default: 2222)
  --uninstall        stop everything and remove the program; data and configuration stay
  --purge            remove everything: program, apps, data, configuration, user
  --help             this text
Without options an installed paasd is brought to this version; its settings and apps stay.
USAGE
}

main() {
  parse "$@"
  [ "$(id -u)" = 0 ] || die "this needs root" "sudo ./install.sh"
  trap 'stop_job; exit 130' INT TERM
  : > "$LOG"
  case $action in
    install) install_all ;;
    uninstall) uninstall ;;
    purge) purge ;;
  esac
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --demo) demo=yes ;;
      --uninstall) action=uninstall ;;
      --purge) action=purge ;;
      --help | -h) usage && exit 0 ;;
      --domain | --admin-key | --http-port | --https-port | --ssh-port)
        [ $# -ge 2 ] && [ -n "$2" ] || usage_error "$1 needs a value"
        take "$1" "$2"
        shift
        ;;
      *) usage_error "unknown option: $1" ;;
    esac
    shift
  done
}

take() {
  case $1 in
    --domain) settings+=("http.domain=$2") ;;
    --admin-key)
      [ -r "$2" ] || die "cannot read $2" "Give the path of a public key, such as ~/.ssh/id_ed25519.pub"
      grep -qE '^(ssh|ecdsa|sk)-' "$2" || die "$2 is not a public SSH key" "Make one with: ssh-keygen -t ed25519"
      admin_key=$2
      ;;
    *) require_port "$1" "$2" ;;
  esac
  case $1 in
    --http-port) settings+=("http.port=$2") ;;
    --https-port) settings+=("http.https_port=$2") ;;
    --ssh-port) settings+=("ssh.port=$2") ;;
  esac
}

require_port() {
  [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] && [ "$2" -le 65535 ] || usage_error "$1: $2 is not a port"
}

usage_error() {
  printf ' !     %s\n' "$1" >&2
  usage >&2
  exit 2
}

die() {
  printf ' !     %s\n' "$@" >&2
  exit 1
}

say() { printf '%s\n' "$*"; }

# Runs a function as a job of its own, so that `set -e` holds inside it, and prints how long it took.
step() {
  local title=$1 start=$SECONDS
  shift
  printf -- '-----> %-40s' "$title"
  "$@" >> "$LOG" 2>&1 &
  job=$!
  if ! wait "$job"; then
    printf ' failed\n'
    tail -n 25 "$LOG" | sed 's/^/       /' >&2
    die "$title failed; everything it printed is in $LOG" "Once that is mended, run this again: it goes on from here."
  fi
  job=''
  printf ' %3d s\n' $((SECONDS - start))
}

stop_job() {
  [ -z "$job" ] || kill "$job" 2> /dev/null || true
}

has_systemd() { [ -d /run/systemd/system ]; }

install_all() {
  require_distribution
  step "Packages of the distribution" install_packages
  step "Container engine" start_engine
  step "User paasd" create_user
  step "Program in $PREFIX" install_program
  step "Settings in $CONFIG" configure
  check_ports
  step "Base image (a minute the first time)" "$PAASD" base:build --config "$CONFIG"
  step "Daemon" start_daemon
  [ -z "$demo" ] || run_demo
  summary
}

require_distribution() {
  local id version
  id=$(. /etc/os-release && printf '%s' "${ID:-}")
  version=$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")
  case "$id $version" in
    "debian 12"* | "debian 13"* | "ubuntu 24.04"*) ;;
    *) say " !     $id $version was never tried; paasd is made for Debian 12 and 13 and Ubuntu 24.04" ;;
  esac
  command -v apt-get > /dev/null || die "there is no apt-get here" "Use Debian or Ubuntu."
}

installed() { dpkg-query -W -f '${Status}' "$1" 2> /dev/null | grep -q 'ok installed'; }

install_packages() {
  local missing=() package new_services=()
  # Docker's own packages are as good as the distribution's, and conflict with them.
  command -v dockerd > /dev/null || PACKAGES+=(docker.io)
  for package in "${PACKAGES[@]}"; do
    installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  installed nginx || new_services+=(nginx)
  installed openssh-server || new_services+=(ssh)
  apt-get -o DPkg::Lock::Timeout=300 update -q
  # Only for smaller answers; not every release of the distributions has it.
  package=libnginx-mod-http-brotli-filter
  [ -z "$(apt-cache search --names-only "^$package\$")" ] || installed "$package" || missing+=("$package")
  without_starting_services env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "${missing[@]}"
  for package in "${new_services[@]}"; do
    disable_service "$package"
  done
}

# paasd runs an Nginx of its own; the distribution's would take port 80.
without_starting_services() {
  local policy=/usr/sbin/policy-rc.d ours='' status=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    ours=yes
  fi
  "$@" || status=$?
  [ -z "$ours" ] || rm -f "$policy"
  return "$status"
}

disable_service() {
  if has_systemd; then
    systemctl disable --now "$1.service" || true
    [ "$1" != ssh ] || systemctl disable --now ssh.socket || true
  elif [ -x "/etc/init.d/$1" ]; then
    update-rc.d "$1" disable || true
  fi
}

start_engine() {
  ! has_systemd || systemctl enable --now docker.service
  python3 "$SOURCE/scripts/engine.py"
}

create_user() {
  getent group paasd > /dev/null || groupadd --system paasd
  getent passwd paasd > /dev/null \
    || useradd --system --gid paasd --home-dir "$DATA_DIR" --no-create-home --shell /bin/sh paasd
  usermod --append --groups docker --password '*' paasd
  install -d -o paasd -g paasd -m 700 "$DATA_DIR"
  # A daemon that ran as root before leaves files that paasd could not change.
  chown -R paasd:paasd "$DATA_DIR"
}

install_program() {
  install -d -m 755 "$PREFIX"
  copy_source
  "$PYTHON" -c '' 2> /dev/null || { rm -rf "$PREFIX/venv" && /usr/bin/python3 -m venv "$PREFIX/venv"; }
  if ! cmp -s "$PREFIX/src/setup.cfg" "$PREFIX/venv/installed-from"; then
    "$PREFIX/venv/bin/pip" install --quiet --disable-pip-version-check --editable "$PREFIX/src"
    cp "$PREFIX/src/setup.cfg" "$PREFIX/venv/installed-from"
  fi
  "$PYTHON" -m compileall -q "$PREFIX/src/paasd" "$PREFIX/src/buildpacks"
  ln -sf "$PAASD" "$COMMAND"
  install -d -m 755 "$(dirname "$COMPLETION")"
  "$PAASD" completion bash > "$COMPLETION"
}

copy_source() {
  [ "$SOURCE" != "$PREFIX/src" ] || return 0
  rm -rf "$PREFIX/src.new" "$PREFIX/src.old"
  install -d -m 755 "$PREFIX/src.new"
  local part
  for part in paasd nginx buildpacks systemd docs scripts/engine.py install.sh setup.cfg pyproject.toml README.md LICENSE; do
    [ ! -e "$SOURCE/$part" ] || tar -C "$SOURCE" --exclude=__pycache__ --exclude='*.egg-info' --no-same-owner -cf - "$part" \
      | tar -C "$PREFIX/src.new" --no-same-owner -xf -
  done
  chown -R root:root "$PREFIX/src.new"
  chmod -R u=rwX,go=rX "$PREFIX/src.new"
  [ ! -e "$PREFIX/src" ] || mv "$PREFIX/src" "$PREFIX/src.old"
  mv "$PREFIX/src.new" "$PREFIX/src"
  rm -rf "$PREFIX/src.old"
}

configure() {
  install -d -m 755 "$CONFIG_DIR"
  [ -e "$CONFIG" ] || printf '# %s\n' "Settings of paasd; docs/config.md lists them all." > "$CONFIG"
  if [ -n "$admin_key" ]; then
    install -m 644 "$admin_key" "$CONFIG_DIR/admin.pub"
    settings+=("admin_key=$CONFIG_DIR/admin.pub")
  fi
  write_settings "${settings[@]}"
  write_environment
  if [ -d /etc/logrotate.d ]; then
    printf '%s {\n  weekly\n  rotate 4\n  compress\n  missingok\n  copytruncate\n}\n' "$DAEMON_LOG" > "$LOGROTATE"
  fi
}

# What the file says already stays, comments included.
write_settings() {
  "$PYTHON" - "$CONFIG" "$@" <<'PY'
import sys
from pathlib import Path

import tomlkit

from paasd import config_file

path, *changes = sys.argv[1:]
document = tomlkit.parse(Path(path).read_text())
for change in changes:
    name, _, value = change.partition("=")
    section, _, key = name.rpartition(".")
    table = document.setdefault(section, tomlkit.table()) if section else document
    table[key] = int(value) if isinstance(config_file.settings()[name], int) else value
text = tomlkit.dumps(document)
new = Path(path + ".new")
new.write_text(text)
config_file.load(new, Path("/var/lib/paasd"))
new.replace(path)
PY
}

# Proxies and package indexes of the host that the daemon's user would not see. Written once; it is yours to edit.
write_environment() {
  local name pip_config
  for pip_config in "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
    [ ! -r "$pip_config" ] || install -m 640 -g paasd "$pip_config" "$CONFIG_DIR/pip.conf"
  done
  [ ! -e "$CONFIG_DIR/environment" ] || return 0
  {
    printf 'HOME=%s\n' "$DATA_DIR"
    [ ! -e "$CONFIG_DIR/pip.conf" ] || printf 'PIP_CONFIG_FILE=%s\n' "$CONFIG_DIR/pip.conf"
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_EXTRA_INDEX_URL \
      PIP_TRUSTED_HOST; do
      [ -z "${!name:-}" ] || printf '%s=%s\n' "$name" "${!name}"
    done
  } > "$CONFIG_DIR/environment"
  chgrp paasd "$CONFIG_DIR/environment"
  chmod 640 "$CONFIG_DIR/environment"
}

# The value of one setting, from the file or by default.
setting() {
  "$PYTHON" -c 'import functools, sys
from pathlib import Path
from paasd import config_file
print(functools.reduce(getattr, sys.argv[2].split("."), config_file.load(Path(sys.argv[1]), Path("/"))))' "$CONFIG" "$1"
}

# A stranger on one of the ports would only be noticed when the daemon fails to start.
check_ports() {
  local taken
  taken=$("$PAASD" doctor --config "$CONFIG" --json 2> /dev/null | "$PYTHON" -c '
import json, sys
for finding in json.load(sys.stdin):
    if finding["check"].endswith(" port") and "is taken by" in finding["text"]:
        print("Port", finding["text"], "(choose another: --" + finding["check"].replace(" ", "-") + " N)")') || true
  [ -z "$taken" ] || die "$taken"
}

start_daemon() {
  if has_systemd; then
    install -m 644 "$PREFIX/src/systemd/paasd.service" "$UNIT"
    systemctl daemon-reload
    systemctl enable paasd.service
    systemctl restart paasd.service
  else
    "$PAASD" stop --config "$CONFIG"
    start_in_background
  fi
  wait_for_daemon
}

# Without systemd: the same user, rights and environment as in systemd/paasd.service.
start_in_background() {
  local lines=() caps=net_bind_service,net_admin,net_raw
  mapfile -t lines < <(grep -E '^[A-Za-z_]+=' "$CONFIG_DIR/environment")
  if ! as_paasd "$caps" true; then
    say "this machine grants no CAP_NET_ADMIN, so the firewall rules cannot be set"
    caps=net_bind_service
  fi
  "$PAASD" builds:limit --config "$CONFIG" || say "builds are not limited; paasd doctor says more"
  ulimit -n 65536 || true
  as_paasd "$caps" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "${lines[@]}" \
    setsid "$PAASD" serve --config "$CONFIG" < /dev/null >> "$DAEMON_LOG" 2>&1 &
  disown
}

as_paasd() {
  local caps=+${1//,/,+}
  shift
  (cd / && umask 077 && exec setpriv --reuid paasd --regid paasd --init-groups --no-new-privs \
    --bounding-set="-all,$caps" --inh-caps="-all,$caps" --ambient-caps="-all,$caps" "$@")
}

wait_for_daemon() {
  local _
  for _ in $(seq 300); do
    ! "$PAASD" version > /dev/null 2>&1 || return 0
    sleep 0.2
  done
  if has_systemd; then journalctl -u paasd.service -n 20 --no-pager; else tail -n 20 "$DAEMON_LOG"; fi
  return 1
}

run_demo() {
  local work status=0
  work=$(mktemp -d)
  say "-----> Demo: pushing buildpacks/python/example to the app hello"
  demo_push "$work" 2>&1 || status=$?
  "$PAASD" keys:remove demo > /dev/null 2>&1 || true
  rm -rf "$work"
  [ "$status" = 0 ] || die "the demo did not work" "Look at: paasd builds:log hello, and paasd doctor"
}

# A fact of the app hello, from its JSON; nothing when there is no such app.
hello() {
  "$PAASD" apps:info hello --json 2> /dev/null | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" 2> /dev/null
}

demo_push() {
  local work=$1 ssh_port http_port url created
  created=$(hello created_at || true)
  if [ -n "$created" ] && [ "$created" != "$(cat "$CONFIG_DIR/demo-app" 2> /dev/null)" ]; then
    say " !     An app hello exists that is not the demo's, so it is left alone"
    return 1
  fi
  ssh_port=$(setting ssh.port) http_port=$(setting http.port)
  ssh-keygen -q -t ed25519 -N '' -C demo -f "$work/key" || return
  "$PAASD" keys:remove demo > /dev/null 2>&1 || true
  "$PAASD" keys:add demo < "$work/key.pub" > /dev/null || return
  cp -r "$PREFIX/src/buildpacks/python/example" "$work/hello" || return
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
  export GIT_SSH_COMMAND="ssh -F /dev/null -i $work/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
-o UserKnownHostsFile=$work/known_hosts -o LogLevel=ERROR"
  git -C "$work/hello" init -q -b main || return
  git -C "$work/hello" add -A || return
  git -C "$work/hello" -c user.name=paasd -c user.email=paasd@localhost commit -q -m "Example" || return
  git -C "$work/hello" push -q --force "ssh://paasd@127.0.0.1:$ssh_port/hello" main || return
  hello created_at > "$CONFIG_DIR/demo-app" || return
  url=$(hello url) || return
  say "-----> $url answers:"
  "$PYTHON" - "$url" "$http_port" <<'PY'
import http.client
import sys
from urllib.parse import urlsplit

url, port = urlsplit(sys.argv[1]), int(sys.argv[2])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
connection.request("GET", "/", headers={"Host": url.netloc})
response = connection.getresponse()
print(f"       {response.status} {response.reason}")
for line in response.read().decode(errors="replace").splitlines():
    print(f"       {line}")
sys.exit(response.status != 200)
PY
}

summary() {
  local ssh_port host
  ssh_port=$(setting ssh.port) host=$(setting http.domain)
  say "=====> paasd is installed"
  [ -e "$CONFIG_DIR/admin.pub" ] || say "       Let somebody push:  paasd keys:add NAME < id_ed25519.pub"
  say "       Deploy an app:      git remote add paasd ssh://paasd@$host:$ssh_port/APP && git push paasd main"
  say "       Check this machine: paasd doctor"
  if has_systemd; then
    say "       Stop the daemon:    systemctl stop paasd   (Nginx and the apps go on; all of it: paasd stop --all)"
  else
    say "       Stop the daemon:    paasd stop   (Nginx and the apps go on; all of it: paasd stop --all)"
    say "       There is no systemd here: run this again after a reboot."
  fi
}

uninstall() {
  step "Stopping" stop_all
  step "Removing the program" remove_program
  say "=====> paasd is removed; $DATA_DIR and $CONFIG_DIR stay, and installing it again brings the apps back"
}

purge() {
  [ -e "$PREFIX" ] || [ -e "$DATA_DIR" ] || [ -e "$CONFIG_DIR" ] || { say "=====> There is no paasd here" && return; }
  [ -x "$PAASD" ] || step "Program in $PREFIX, to remove what it made" install_program
  step "Stopping" stop_all
  step "Removing apps and data" remove_data
  step "Removing the program" remove_program
  step "Removing settings and user" remove_traces
  say "=====> paasd is gone. Packages of the distribution and the base images paasd/* of the engine stay."
}

stop_all() {
  if has_systemd && [ -e "$UNIT" ]; then
    systemctl disable --now paasd.service
  fi
  [ ! -x "$PAASD" ] || "$PAASD" stop --all --apps
}

remove_data() {
  "$PAASD" purge --force
}

remove_program() {
  rm -rf "$PREFIX" "$COMPLETION" "$LOGROTATE" "$UNIT"
  [ ! -L "$COMMAND" ] || rm -f "$COMMAND"
  ! has_systemd || systemctl daemon-reload
}

remove_traces() {
  rm -rf "$CONFIG_DIR" "$DATA_DIR" "$DAEMON_LOG"
  ! getent passwd paasd > /dev/null || userdel paasd
  ! getent group paasd > /dev/null || groupdel paasd
}

main "$@"
exit
