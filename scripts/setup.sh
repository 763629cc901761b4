# shellcheck shell=bash
# Shared by install.sh and test.sh, which both source it: numbered steps that show what happens and how long it took, and
# the steps that make a checkout runnable (Debian packages, npm packages, the build). Nothing here leaves the checkout
# but the Debian packages. The sourcing script sets `root`, the checkout, and `log`, the file that keeps all output.

set -euo pipefail
: "${root:?}" "${log:?}"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" HOME="${HOME:-/root}"
export DEBIAN_FRONTEND=noninteractive

# A program the project runs, and the Debian package that has it.
host_programs=(
  qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils
  mmdebstrap:mmdebstrap mke2fs:e2fsprogs lz4:lz4 xz:xz-utils zstd:zstd depmod:kmod
  ip:iproute2 nft:nftables dnsmasq:dnsmasq-base
  skopeo:skopeo
)
# Programs that only a checkout needs, since it is built.
build_programs=(go:golang-go npm:npm gcc:gcc)
# Likewise files, of the C library.
build_files=(/usr/include/stdio.h:libc6-dev)
# A file that programs above need, and the Debian package that has it.
host_files=(
  /etc/ssl/certs/ca-certificates.crt:ca-certificates
  /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
)

bun="$root/node_modules/.bin/bun"
current_step=""
advice=""

# step NAME COMMAND...: runs the command with its output in the log. It can talk to the person with `say`.
step() {
  current_step=$1
  local started=$EPOCHREALTIME
  printf '%s\n' "$current_step ..." >&3
  printf '\n== %s\n' "$current_step" >&2
  shift
  "$@"
  printf '  done in %s s\n' "$(seconds_since "$started")" >&3
  current_step=""
  advice=""
}

say() { printf '  %s\n' "$*" >&3; }

# fail MESSAGE [ADVICE]: ends the script, inside a step or before it.
fail() {
  advice=${2:-}
  printf 'error: %s\n' "$1" >&2
  exit 1
}

seconds_since() {
  local tenths=$(((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# From here on the terminal is descriptor 3 and everything else goes to the log.
open_log() {
  mkdir -p "$(dirname "$log")"
  (umask 077 && : >"$log")
  exec 3>&1 >>"$log" 2>&1
  trap report_failure EXIT
}

report_failure() {
  local status=$?
  [[ $status -ne 0 && -n $current_step ]] || return 0
  {
    printf '\nfailed: %s\n' "$current_step"
    tail -n 15 "$log" | sed 's/^/  | /'
    printf 'whole log: %s\n' "$log"
    printf 'what to do: %s\n' "${advice:+$advice; then }run $0 again, it goes on where it stopped"
  } >&3
}

install_packages() {
  local entry missing=()
  for entry in "${host_programs[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
  done
  for entry in "${host_files[@]}"; do
    [[ -e ${entry%%:*} ]] || missing+=("${entry##*:}")
  done
  if [[ ${#missing[@]} -eq 0 ]]; then
    say "all there"
    return
  fi
  [[ $EUID -eq 0 ]] || fail "packages are missing: ${missing[*]}" "apt-get install ${missing[*]} as root"
  say "install ${missing[*]}"
  advice="see that apt works (apt-get update) and the disk has room"
  # Package lists may be missing or name versions that the mirror no longer has.
  apt_install "${missing[@]}" || { apt-get update && apt_install "${missing[@]}"; }
}

apt_install() {
  # Another apt, such as the nightly upgrade, may hold the lock for a while.
  apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"
}

install_npm_packages() {
  local installed="$root/node_modules/.installed-package-lock.json"
  if cmp --silent "$root/package-lock.json" "$installed"; then
    say "all there"
    return
  fi
  advice="see that the npm registry can be reached"
  npm ci --prefix "$root" --no-audit --no-fund
  # An npm that runs no scripts of packages leaves Bun's own set-up to us.
  "$bun" --version || node "$root/node_modules/bun/install.js"
  cp "$root/package-lock.json" "$installed"
}

build() {
  (cd "$root" && "$bun" scripts/build.ts) | tee /dev/stderr | sed 's/^/  /' >&3
}

# Under sudo, what was made in somebody's checkout is theirs.
give_back() {
  local path
  for path in node_modules dist; do
    [[ $EUID -ne 0 || ! -e $root/$path ]] || chown --recursive --reference="$root" "$root/$path"
  done
}
