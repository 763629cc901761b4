# shellcheck shell=bash
# install.sh's last step: what other machines install from this host's daemon, in DATA_DIR/clients. Sourced by install.sh, whose
# variables it uses; a checkout makes all of it, a release archive only itself.

# Makes the files that the daemon serves at /install, beside its own program. Everything else works without them.
install_clients() {
  local served=$data_dir/clients stamp made
  if [[ -n $clients ]]; then
    want "folder $BASHPID $EPOCHREALTIME"
    serve_folder "$clients"
    return
  fi
  stamp=$(sha256sum <"$built")
  if [[ $makes_clients = no ]]; then
    say "left out; later: install.sh --clients DIR, with a release folder"
    return
  elif is_made_for "$stamp"; then
    want "build $stamp"
    say "all there"
    return
  elif is_archive && [[ -e $served/SHA256SUMS && ! -e $served/made-for ]]; then
    say "stay as they are; newer ones with: install.sh --clients DIR"
    return
  fi
  want "build $stamp"
  if ! is_archive; then
    say "are made in the background, in a minute or two; $clients_log tells when they are served"
    make_clients "$stamp" </dev/null >"$clients_log" 2>&1 3>&1 &
    disown
    return
  fi
  made=$(mktemp -d)
  pack_archive "$made/release"
  echo "$stamp" >"$made/release/made-for"
  serve_folder "$made/release"
  rm -rf "$made"
}

# Nobody waits for it: 140 MB are fetched, and 500 packed. It outlives the terminal, and gives way to all else.
make_clients() {
  local made
  wanted="build $1"
  trap '' HUP
  trap - EXIT
  renice -n 19 "$BASHPID" || true
  exec 9>"$data_dir/clients.build.lock"
  flock 9
  if is_made_for "$1"; then
    say "all there"
    return
  fi
  made=$(mktemp -d)
  if (cd "$root" && "$bun" run scripts/release.ts --quick --out "$made/release"); then
    echo "$1" >"$made/release/made-for"
    serve_folder "$made/release"
  else
    say "they could not be made; run install.sh again when the npm registry can be reached"
  fi
  rm -rf "$made"
}

# pack_archive DIR: this archive as it came; for the command line of this platform the daemon has its own program.
pack_archive() {
  local name=bhatti-server-linux-x64.tar.gz
  mkdir -p "$1"
  tar -c --transform 's,^\.,bhatti-server,' -C "$root" ./bhatti ./install.sh ./scripts/setup.sh ./scripts/clients.sh ./LICENSE | gzip -1 >"$1/$name"
  (cd "$1" && sha256sum "$name" >SHA256SUMS)
  say "this platform's only; others with: install.sh --clients DIR, with a release folder"
}

is_made_for() { [[ $(cat "$data_dir/clients/made-for" 2>/dev/null) = "$1" ]]; }

# want TOKEN: what is to be served from now on. A build that began before, and ends after, serves nothing.
want() {
  wanted=$1
  exec 8>"$data_dir/clients.lock"
  flock 8
  echo "$wanted" >"$data_dir/clients.wanted"
  exec 8>&-
}

# serve_folder DIR: whole or not at all, one at a time, and only if nothing else is wanted by now.
serve_folder() {
  (cd "$1" && grep '\.gz$' SHA256SUMS | sha256sum --check --quiet) || fail "$1 is damaged: checksums differ"
  exec 8>"$data_dir/clients.lock"
  flock 8
  if [[ $(cat "$data_dir/clients.wanted") != "$wanted" ]]; then
    exec 8>&-
    say "a later install.sh wants others: what is served stays"
    return
  fi
  rm -rf "$data_dir/clients.part"
  cp -r "$1" "$data_dir/clients.part"
  rm -rf "$data_dir/clients"
  mv "$data_dir/clients.part" "$data_dir/clients"
  exec 8>&-
  say "get one with: curl -fsSL http://$(listen_address)/install | sh"
}
