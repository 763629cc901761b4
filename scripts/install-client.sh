#!/bin/sh
# Installs bhatti's command line on Linux or macOS, or on Linux the server; run it again to update. A daemon serves this script at
# /install and fills in where the files are: curl -fsSL http://HOST:8080/install | sh
# POSIX sh. All of it is functions that the last line calls, so that a part of it does nothing.

set -eu

# The folder with SHA256SUMS, and the daemon to speak to: filled in by who serves this script.
files=
daemon=

usage='usage: curl -fsSL ADDRESS/install | sh -s -- [--client | --server] [--dir DIR] [--url URL] [--from URL] [--no-setup]

  --client     the command line only; what happens without a terminal to ask at
  --server     the daemon on this machine, with the command line: Debian or a relative, x86-64, root
  --dir DIR    where the command line goes: /usr/local/bin if you may write there, else ~/.local/bin
  --url URL    address of the daemon, if another than where this script is from, such as https of a proxy in front
  --from URL   the folder with SHA256SUMS and the files
  --no-setup   do not ask for address and key

Environment: BHATTI_URL and BHATTI_TOKEN are saved without a question, BHATTI_CA is a file with the certificates to trust.'

kind= directory= from= asks=yes work= part=
ca=${BHATTI_CA:-}

main() {
  read_arguments "$@"
  need uname mktemp chmod mv mkdir rm gzip
  find_platform
  trap clean_up EXIT
  trap 'exit 1' HUP INT TERM
  work=$(mktemp -d "${TMPDIR:-/tmp}/bhatti-install.XXXXXX")
  fetch "$files/SHA256SUMS" "$work/sums" || fail "cannot fetch $files/SHA256SUMS" "see that the address is right and can be reached"
  choose_kind
  if [ "$kind" = server ]; then install_server; else install_client; fi
}

read_arguments() {
  served_at=$daemon
  while [ $# -gt 0 ]; do
    case $1 in
      --client) kind=client ;;
      --server) kind=server ;;
      --dir) [ $# -ge 2 ] || fail "--dir needs DIR"; directory=$2; shift ;;
      --url) [ $# -ge 2 ] || fail "--url needs URL"; daemon=${2%/}; shift ;;
      --from) [ $# -ge 2 ] || fail "--from needs URL"; from=${2%/}; shift ;;
      --no-setup) asks=no ;;
      -h | --help) printf '%s\n' "$usage"; exit 0 ;;
      *) fail "unknown option $1" "see --help" ;;
    esac
    shift
  done
  if [ -n "$from" ]; then files=$from; elif [ "$daemon" != "$served_at" ]; then files=$daemon/install; fi
  [ -n "$files" ] || fail "--from URL is needed: this copy of the script does not know where the files are"
}

clean_up() {
  [ -z "$work" ] || rm -rf "$work"
  [ -z "$part" ] || rm -f "$part"
}

say() { printf '%s\n' "$*"; }

# fail MESSAGE [HINT]
fail() {
  printf 'bhatti: %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf '  %s\n' "$2" >&2
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

need() {
  for program in "$@"; do has "$program" || fail "this needs $program, which is not here"; done
  has curl || has wget || fail "this needs curl or wget, and neither is here"
  has sha256sum || has shasum || fail "this needs sha256sum or shasum, and neither is here"
}

find_platform() {
  case $(uname -s) in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    *) fail "there is no bhatti for $(uname -s)" "it runs on Linux and macOS" ;;
  esac
  case $(uname -m) in
    x86_64 | amd64) cpu=x64 ;;
    aarch64 | arm64) cpu=arm64 ;;
    *) fail "there is no bhatti for $(uname -m)" "it runs on x86-64 and arm64" ;;
  esac
  # Rosetta tells its programs that the processor is an Intel.
  if [ "$os-$cpu" = darwin-x64 ] && [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || true)" = 1 ]; then cpu=arm64; fi
}

# fetch URL FILE
fetch() {
  if has curl; then
    quiet=-sS
    # At a terminal the download shows its progress.
    case $1 in *.gz | */bhatti-*) if [ -t 2 ]; then quiet=-#; fi ;; esac
    set -- -fL "$quiet" --connect-timeout 20 -o "$2" "$1"
    [ -z "$ca" ] || set -- --cacert "$ca" "$@"
    # A redirect must not take away what TLS shows.
    case $files in https://*) set -- --proto '=https' --proto-redir '=https' "$@" ;; esac
    curl "$@"
  else
    # No -T: BusyBox 1.35 crashes with it.
    set -- -q -O "$2" "$1"
    [ -z "$ca" ] || set -- "--ca-certificate=$ca" "$@"
    # It cannot be told to follow redirects to https only. BusyBox's follows all, and tell_trust says so.
    case $files in https://*) if is_gnu_wget; then set -- --max-redirect=0 "$@"; fi ;; esac
    wget "$@"
  fi
}

is_gnu_wget() { case $(wget --version 2>/dev/null || true) in *GNU*) return 0 ;; *) return 1 ;; esac; }

sum_of() {
  if has sha256sum; then set -- "$(sha256sum <"$1")"; else set -- "$(shasum -a 256 <"$1")"; fi
  printf '%s' "${1%% *}"
}

# listed NAME: prints the checksum that SHA256SUMS has for it, nothing if it is not there.
listed() {
  while read -r sum name; do
    if [ "$name" = "$1" ]; then printf '%s' "$sum"; fi
  done <"$work/sums"
}

all_listed() {
  while read -r sum name; do
    case $name in *.gz) name=${name%.gz} ;; esac
    case $name in bhatti-*-*) printf ' %s\n' "${name#bhatti-}" ;; esac
  done <"$work/sums" | sort -u | tr -d '\n'
}

# fetch_checked NAME: into the working directory, with the checksum that is listed.
fetch_checked() {
  fetch "$files/$1" "$work/$1" || fail "cannot fetch $files/$1" "run this again"
  [ "$(sum_of "$work/$1")" = "$(listed "$1")" ] ||
    fail "$1 is damaged: its checksum is not the one that is listed" "run this again; if it stays so, tell whoever runs $files"
}

# A terminal, also when standard input is this script.
can_ask() { (: </dev/tty) 2>/dev/null && (: >/dev/tty) 2>/dev/null; }

choose_kind() {
  [ -z "$kind" ] || return 0
  kind=client
  [ "$os-$cpu" = linux-x64 ] && [ -n "$(listed bhatti-server-linux-x64.tar.gz)" ] && can_ask || return 0
  printf 'Install\n  1) the command line, for a daemon on another machine\n  2) the server on this machine, and the command line\nWhich one? [1] ' >/dev/tty
  read -r answer </dev/tty || answer=
  case $answer in
    '' | 1) ;;
    2) kind=server ;;
    *) fail "\"$answer\" is neither 1 nor 2" ;;
  esac
}

install_server() {
  archive=bhatti-server-linux-x64.tar.gz
  [ "$os-$cpu" = linux-x64 ] || fail "the server runs on Linux on x86-64 only, this is $os on $cpu"
  [ -n "$(listed "$archive")" ] || fail "$files does not have the server"
  need bash tar
  say "fetch the server from $files"
  fetch_checked "$archive"
  tell_trust
  tar -xzf "$work/$archive" -C "$work"
  if [ "$(id -u)" = 0 ]; then
    bash "$work/bhatti-server/install.sh" </dev/null
  elif has sudo; then
    sudo bash "$work/bhatti-server/install.sh" </dev/null
  else
    fail "the server's installation needs root, and there is no sudo here"
  fi
}

install_client() {
  name=bhatti-$os-$cpu
  if [ -z "$(listed "$name")" ]; then
    fail "$files has no command line for $os-$cpu; it has:$(all_listed)" "whoever runs it adds others with: sudo ./install.sh (in a checkout), or install.sh --clients DIR"
  fi
  if [ "$os" = linux ]; then check_linux; fi
  choose_directory
  program=$directory/bhatti
  if is_server "$program"; then
    say "$program is the server's, and the command line too: nothing to install (the server's install.sh updates it)"
    set_up
    return
  fi
  if [ -e "$program" ] && [ "$(sum_of "$program")" = "$(listed "$name")" ]; then
    say "$program is up to date"
  else
    put_in_place
  fi
  tell_path
  set_up
}

# Without either the program would not start, and could not say why.
check_linux() {
  [ -e /proc/self/exe ] || fail "/proc is needed, and is not mounted here" "mount -t proc proc /proc"
  case $cpu in
    x64) loader=/lib64/ld-linux-x86-64.so.2 ;;
    arm64) loader=/lib/ld-linux-aarch64.so.1 ;;
  esac
  [ -e "$loader" ] || fail "the GNU C library is needed, and $loader is not here" "on Alpine and the like run it in a container of Debian"
}

choose_directory() {
  if [ -n "$directory" ]; then
    while [ "$directory" != / ] && [ "$directory" != "${directory%/}" ]; do directory=${directory%/}; done
    case $directory in
      /*) ;;
      *) directory=$(pwd)/${directory#./} ;;
    esac
    return 0
  fi
  if [ "$(id -u)" = 0 ] || [ -w /usr/local/bin ]; then
    directory=/usr/local/bin
  else
    [ -n "${HOME:-}" ] || fail "HOME is not set" "say where it goes with --dir DIR"
    directory=$HOME/.local/bin
  fi
}

# is_server FILE: a daemon runs from it, or will.
is_server() {
  [ -e "$1" ] || return 1
  if [ "$1" -ef /usr/local/bin/bhatti ] && [ -e /var/lib/bhatti ]; then return 0; fi
  started=$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' /etc/systemd/system/bhatti.service 2>/dev/null || true)
  if [ -n "$started" ] && [ "$1" -ef "$started" ]; then return 0; fi
  for process in /proc/[0-9]*; do
    [ "$process/exe" -ef "$1" ] || continue
    case $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) in *" serve "*) return 0 ;; esac
  done
  return 1
}

# By rename, so that a bhatti that runs goes on, and no half file is ever there.
put_in_place() {
  before=
  if [ -e "$program" ]; then before=updated; fi
  mkdir -p "$directory" || fail "cannot make $directory" "choose another with --dir DIR"
  part=$directory/.bhatti.$$.part
  (umask 022 && : >"$part") 2>/dev/null || fail "cannot write to $directory" "run it as root, or choose another with --dir DIR"
  say "fetch $name from $files"
  if [ -n "$(listed "$name.gz")" ]; then
    fetch_checked "$name.gz"
    gzip -dc "$work/$name.gz" >"$part" || fail "cannot unpack $name.gz into $directory" "see that there is room: it takes 120 MB"
  else
    fetch "$files/$name" "$part" || fail "cannot fetch $files/$name" "run this again"
  fi
  [ "$(sum_of "$part")" = "$(listed "$name")" ] || fail "$name is damaged: its checksum is not the one that is listed" "run this again"
  tell_trust
  chmod 755 "$part"
  version=$(BHATTI_CONFIG=/dev/null "$part" version </dev/null 2>&1) || fail "what was fetched does not run on this machine: $version"
  mv -f "$part" "$program"
  part=
  say "${version%%
*} is ${before:-installed}: $program"
}

# Says how far the checksum can be trusted: it comes from where the file comes from.
tell_trust() {
  case $files in
    https://*)
      if has curl || is_gnu_wget; then
        say "checksum is right: the file is whole; TLS says whom it came from"
      else
        say "checksum is right: the file is whole; this wget need not check certificates, so it does not show who sent it"
      fi
      ;;
    http://127.* | http://localhost* | 'http://[::1]'*) say "checksum is right: the file is whole" ;;
    *) say "checksum is right: the file is whole; over plain HTTP that does not show who sent it" ;;
  esac
}

tell_path() {
  case :$PATH: in
    *":$directory:"*)
      found=$(command -v bhatti || true)
      [ "$found" = "$program" ] || say "note: $found comes before it in your PATH"
      ;;
    *)
      case ${SHELL:-} in */zsh) profile="~/.zprofile" ;; *) profile="~/.profile" ;; esac
      say "note: $directory is not in your PATH; add this line to $profile:"
      say "  export PATH=\"$directory:\$PATH\""
      ;;
  esac
}

# Address and key. Settings that work stay.
set_up() {
  [ "$asks" = yes ] || return 0
  url=${BHATTI_URL:-$daemon}
  if [ -n "${BHATTI_TOKEN:-}" ]; then
    [ -n "$url" ] || fail "BHATTI_URL is needed with BHATTI_TOKEN"
    # Not as words, which other users of this machine could read.
    printf '%s\n%s\n' "$url" "$BHATTI_TOKEN" | run_setup
  elif "$program" list >/dev/null 2>&1 </dev/null; then
    say "your settings work and stay; others with: bhatti setup"
  elif can_ask; then
    if [ -n "$url" ]; then
      BHATTI_URL=$url run_setup </dev/tty
    else
      run_setup </dev/tty
    fi
  else
    say "next: $program setup --url ${url:-URL} --token KEY   (the key is from: sudo bhatti user create --name NAME, on the daemon's host)"
  fi
}

run_setup() {
  set -- setup
  [ -z "$ca" ] || set -- "$@" --ca "$ca"
  "$program" "$@"
}

main "$@"
