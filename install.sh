#!/bin/bash
# Sets up bhatti on a Debian host and ends with a first sandbox having said hello. Run it again to update: sandboxes
# keep running. What it does to the host is here; what it does to the data directory is `bhatti init`.
# It is in a checkout, which it builds, or in a release archive, beside the program that it installs.

# Until here any shell must understand it, also one that reads it from standard input.
if [ -z "${BASH_VERSION:-}" ] || [ ! -e "$(dirname "${BASH_SOURCE:-/nowhere/}")/scripts/setup.sh" ]; then
  echo "error: install.sh needs bash and the files beside it; in a checkout or an unpacked release archive run: sudo ./install.sh" >&2
  exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log=/var/log/bhatti-install.log
# shellcheck source=scripts/setup.sh
source "$root/scripts/setup.sh"
# shellcheck source=scripts/clients.sh
source "$root/scripts/clients.sh"

usage="usage: sudo ./install.sh [--listen HOST:PORT] [--clients DIR | --no-clients]
       sudo ./install.sh --uninstall [--purge]

  --listen HOST:PORT  address of the daemon, first installation only (default 127.0.0.1:8080)
  --clients DIR       what other machines may install from this daemon: the files of this release folder
  --no-clients        leave that as it is; a checkout otherwise makes the command line for Linux and macOS
  --uninstall         stop all sandboxes and the daemon, remove the program; sandboxes and settings stay
  --purge             with --uninstall: remove sandboxes, settings and caches too"

binary=/usr/local/bin/bhatti
data_dir=/var/lib/bhatti
cache_dir=/var/cache/bhatti
unit=/etc/systemd/system/bhatti.service
pid_file=/run/bhatti.pid
daemon_log=/var/log/bhatti.log
clients_log=/var/log/bhatti-clients.log
listen=""
clients=""
makes_clients=yes

main() {
  local action=install purge=no
  while [[ $# -gt 0 ]]; do
    case $1 in
      --listen) [[ $# -ge 2 ]] || fail "--listen needs HOST:PORT"; listen=$2; shift ;;
      --clients) [[ $# -ge 2 ]] || fail "--clients needs DIR"; clients=$2; shift ;;
      --no-clients) makes_clients=no ;;
      --uninstall) action=uninstall ;;
      --purge) purge=yes ;;
      --help | -h) printf '%s\n' "$usage"; exit 0 ;;
      *) fail "unknown option $1; see ./install.sh --help" ;;
    esac
    shift
  done
  [[ $purge = no || $action = uninstall ]] || fail "--purge goes with --uninstall"
  [[ -z $clients || -e $clients/SHA256SUMS ]] || fail "$clients is no release folder: it has no SHA256SUMS"
  [[ $EUID -eq 0 ]] || fail "install.sh needs root: sudo ./install.sh"
  command -v apt-get >/dev/null || fail "install.sh works on Debian and its relatives only: there is no apt-get here"
  [[ $(uname -m) = x86_64 ]] || fail "bhatti runs on x86-64 only, this is $(uname -m)"

  open_log
  if [[ $action = uninstall ]]; then
    uninstall "$purge"
  else
    install_bhatti
  fi
}

install_bhatti() {
  local started=$EPOCHREALTIME
  if is_archive; then
    built=$root/bhatti
  else
    built=$root/dist/bhatti
    host_programs+=("${build_programs[@]}")
    host_files+=("${build_files[@]}")
  fi
  step "1/8 Debian packages" install_packages
  if is_archive; then
    printf '2/8 npm packages, 3/8 build: not needed, the program is in this archive\n' >&3
  else
    step "2/8 npm packages" install_npm_packages
    step "3/8 build" build
    give_back
  fi
  step "4/8 $binary" install_binary
  step "5/8 keys, kernel, image and template in $data_dir" initialise
  step "6/8 daemon" start_daemon
  step "7/8 first sandbox" first_sandbox
  step "8/8 what other machines install from here" install_clients
  cat >&3 <<END

bhatti is ready, after $(seconds_since "$started") s. Try:
  bhatti create --name dev
  bhatti exec dev -- uname -a
  bhatti exec -t dev -- bash
  bhatti destroy dev
END
}

is_archive() { [[ ! -e $root/package.json ]]; }

# By rename, because a file that runs cannot be written to.
install_binary() {
  if cmp --silent "$built" "$binary"; then
    say "is up to date"
    return
  fi
  install -m 0755 "$built" "$binary.part"
  mv -f "$binary.part" "$binary"
  "$binary" version
}

initialise() {
  advice="see that the Debian mirror can be reached and $data_dir and $cache_dir have 2 GB"
  "$binary" init --data-dir "$data_dir" --cache-dir "$cache_dir" --write-client-config ${listen:+--listen "$listen"} 2>&1 |
    tee /dev/stderr | sed -u 's/^/  /' >&3
}

start_daemon() {
  advice=$(where_the_daemon_talks)
  if has_systemd; then
    write_unit
    systemctl enable bhatti
  fi
  local pid
  pid=$(daemon_pid)
  if [[ -n $pid && /proc/$pid/exe -ef $binary ]]; then
    say "runs already (pid $pid)"
  else
    [[ -z $pid ]] || say "restart, sandboxes keep running"
    stop_daemon
    launch_daemon
  fi
  wait_for_health
}

where_the_daemon_talks() {
  if has_systemd; then echo "read what journalctl -u bhatti prints"; else echo "read $daemon_log"; fi
}

has_systemd() { [[ -d /run/systemd/system ]]; }

# KillMode=process and Delegate: machines outlive the daemon and are found again by the next one.
write_unit() {
  cat >"$unit.part" <<END
[Unit]
Description=bhatti sandboxes
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=$binary serve --data-dir $data_dir
Restart=on-failure
KillMode=process
Delegate=yes
OOMPolicy=continue
# More than stop_timeout can be.
TimeoutStopSec=150
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
END
  if cmp --silent "$unit.part" "$unit"; then
    rm "$unit.part"
  else
    mv "$unit.part" "$unit"
    systemctl daemon-reload
  fi
}

launch_daemon() {
  if has_systemd; then
    systemctl start bhatti
    return
  fi
  ulimit -n "$(ulimit -Hn)" || true
  setsid "$binary" serve --data-dir "$data_dir" </dev/null >>"$daemon_log" 2>&1 3>&- &
  echo $! >"$pid_file"
}

# Prints nothing when it does not run. A pid file alone proves nothing: the number may be another process by now, also one of
# the same program that somebody else has started.
daemon_pid() {
  local pid=""
  if has_systemd; then
    pid=$(systemctl show --property MainPID --value bhatti)
  elif [[ -e $pid_file ]]; then
    pid=$(<"$pid_file")
  fi
  if [[ ${pid:-0} -ne 0 ]] && is_daemon "$pid"; then echo "$pid"; fi
}

is_daemon() {
  local words
  [[ $(readlink "/proc/$1/exe") = "$binary"* && $(awk '/^Uid:/ { print $2 }' "/proc/$1/status") = "$EUID" ]] || return 1
  mapfile -d '' -t words <"/proc/$1/cmdline"
  [[ ${words[1]:-} = serve ]]
}

stop_daemon() {
  local pid
  pid=$(daemon_pid)
  [[ -n $pid ]] || return 0
  if has_systemd; then
    systemctl stop bhatti
  else
    kill "$pid"
    wait_until 30 daemon_is_gone || fail "the daemon (pid $pid) does not stop" "kill -9 $pid"
    rm -f "$pid_file"
  fi
}

daemon_is_gone() { [[ -z $(daemon_pid) ]]; }

# wait_until SECONDS COMMAND...: true as soon as the command is, false when the time is over.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

wait_for_health() {
  # Between fork and exec it is not the daemon yet.
  wait_until 5 daemon_runs || true
  wait_until 60 answers_or_died || true
  if ! is_healthy || daemon_is_gone; then
    has_systemd || tail -n 10 "$daemon_log"
    fail "the daemon does not answer on $(listen_address)" "$advice, and see that nothing else uses its address"
  fi
}

answers_or_died() { daemon_is_gone || is_healthy; }

daemon_runs() { ! daemon_is_gone; }

# HOST:PORT under which this host reaches its daemon.
listen_address() {
  sed -n 's/^listen: *//p' "$data_dir/config.yaml" | sed -E 's/^(0\.0\.0\.0|\[::\]):/127.0.0.1:/'
}

is_healthy() {
  local address host line
  address=$(listen_address)
  host=${address%:*}
  host=${host#[}
  {
    exec 4<>"/dev/tcp/${host%]}/${address##*:}" || return 1
    printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&4
    read -r -t 5 line <&4 || line=""
    exec 4>&-
  } 2>/dev/null
  [[ $line = *" 200 "* ]]
}

first_sandbox() {
  local name=install-check
  advice=$(where_the_daemon_talks)
  BHATTI_CONFIG=$(caller_home)/.bhatti/config.yaml
  export BHATTI_CONFIG
  if ! is_own_config "$BHATTI_CONFIG"; then
    say "left out, since $BHATTI_CONFIG is for another host"
    return
  fi
  # Leftovers of an interrupted run.
  "$binary" destroy "$name" || true
  timed "create" "$binary" create --name "$name"
  timed "exec -- echo hello" "$binary" exec "$name" -- echo hello
  timed "destroy" "$binary" destroy "$name"
}

timed() {
  local what=$1 started=$EPOCHREALTIME output
  shift
  output=$("$@")
  say "$what: $(((${EPOCHREALTIME/[.,]/} - ${started/[.,]/}) / 1000)) ms${output:+, ${output//$'\n'/ }}"
}

is_own_config() {
  local address
  address=$(listen_address)
  grep --quiet --line-regexp --fixed-strings "api_url: http://${address/#127.0.0.1:/localhost:}" "$1"
}

# Under sudo it is the caller who will use bhatti.
caller_home() {
  if [[ -n ${SUDO_USER:-} ]]; then getent passwd "$SUDO_USER" | cut -d: -f6; else echo "$HOME"; fi
}

uninstall() {
  step "stop the daemon" stop_daemon
  step "stop all sandboxes" stop_machines
  step "remove the network of sandboxes" remove_network
  step "remove the program" remove_program
  if [[ $1 = yes ]]; then
    step "remove sandboxes, settings and caches" remove_data
  else
    printf 'sandboxes and settings are still in %s; --uninstall --purge removes them too\n' "$data_dir" >&3
  fi
  printf 'Debian packages stay, and so does this checkout.\n' >&3
}

# Words prove nothing, since anybody chooses those of their own processes. A machine is a QEMU that holds a file of its directory.
stop_machines() {
  local link pid held
  for link in /proc/[0-9]*/exe; do
    [[ $(readlink "$link") = */qemu-system-x86_64* ]] || continue
    pid=$(cut -d/ -f3 <<<"$link")
    held=$(held_machine "$pid")
    [[ -n $held ]] || continue
    say "stop $held"
    kill "$pid" || true
  done
}

held_machine() {
  local fd file
  for fd in "/proc/$1/fd"/*; do
    file=$(readlink "$fd") || continue
    # Another process's idea of paths may differ from ours, the file itself does not.
    if [[ $file = */disk.qcow2 || $file = */device-state ]] && is_machine_file "$fd" "$file"; then
      basename "$(dirname "$file")"
      return
    fi
  done
}

is_machine_file() {
  local directory name=${2##*/}
  directory=$(basename "$(dirname "$2")")
  [[ $1 -ef $data_dir/sandboxes/$directory/$name || $1 -ef $data_dir/templates/$directory/$name ]]
}

# All of it is named after the data directory, so another installation's stays.
remove_network() {
  local site
  site=$(printf %s "$data_dir" | sha256sum | cut -c1-5)
  stop_name_servers "/run/bhatti_$site"
  rm -rf "/run/bhatti_$site"
  nft delete table inet "bhatti_$site" 2>/dev/null || true
  nft delete table arp "bhatti_$site" 2>/dev/null || true
  nft delete table inet "bhatti_${site}_images" 2>/dev/null || true
  ip link delete dev "bhgw$site" 2>/dev/null || true
}

# A name server is a process with our file in its words that holds a socket of port 53 which root has bound.
stop_name_servers() {
  local line pid
  while read -r line; do
    [[ $line != *" uid:"* ]] || continue
    for pid in $(grep --only-matching 'pid=[0-9]*' <<<"$line" | cut -d= -f2); do
      if tr '\0' '\n' <"/proc/$pid/cmdline" | grep --quiet --line-regexp -- "--conf-file=$1/[^/]*/dnsmasq.conf"; then
        kill "$pid" || true
      fi
    done
  done < <(ss -Hlunpe 'sport = :53')
}

remove_program() {
  if [[ -e $unit ]]; then
    systemctl disable bhatti
    rm -f "$unit"
    systemctl daemon-reload
  fi
  rm -f "$binary" "$pid_file"
}

remove_data() {
  local settings
  settings=$(caller_home)/.bhatti
  if is_own_config "$settings/config.yaml"; then
    rm "$settings/config.yaml"
    rmdir "$settings" || true
  fi
  rm -rf "$data_dir" "$cache_dir" "$daemon_log" "$clients_log"
}

main "$@"
