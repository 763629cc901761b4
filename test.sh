#!/bin/bash
# Runs every test and ends with the line "N passed, N failed". Installs what the tests need, but no daemon and nothing
# on the PATH; an installed bhatti is not touched. `--unit` leaves out the tests on real machines.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log="$root/dist/test.log"
# shellcheck source=scripts/setup.sh
source "$root/scripts/setup.sh"

# What only the tests run: real terminals, shells, certificates and clients.
test_programs=(tmux:tmux zsh:zsh fish:fish openssl:openssl curl:curl)
caddy_dir=/var/cache/bhatti/caddy

passed=0
failed=0

main() {
  case ${1:-} in
    "") local with_machines=yes ;;
    --unit) local with_machines=no ;;
    *) fail "usage: ./test.sh [--unit]" ;;
  esac
  cd "$root"
  open_log
  reports=$(mktemp -d)
  trap 'report_failure; rm -rf "$reports"' EXIT
  host_programs+=("${build_programs[@]}" "${test_programs[@]}")
  step "Debian packages" install_packages
  step "Caddy" unpack_caddy
  step "npm packages" install_npm_packages
  step "build" build
  give_back

  check "biome and tsc" "$bun" run check
  check "gofmt" no_output gofmt -l agent jail
  check "go vet of agent" go_in agent vet ./...
  check "go vet of jail" go_in jail vet ./...
  go_tests
  bun_tests "unit tests" test
  if [[ $with_machines = yes ]]; then
    bun_tests "end-to-end tests" test:e2e
    check "ratios of the benchmark" "$bun" run bench --check
  fi
  printf '%d passed, %d failed\n' "$passed" "$failed" >&3
  [[ $failed -eq 0 ]]
}

# Its package would start a web server on this host, so it is only unpacked.
unpack_caddy() {
  if command -v caddy >/dev/null; then
    say "all there"
    return
  fi
  if [[ ! -x $caddy_dir/usr/bin/caddy ]]; then
    advice="see that apt works (apt-get update)"
    local download
    download=$(mktemp -d)
    chmod 755 "$download"
    (cd "$download" && { apt-get download caddy || { apt-get update && apt-get download caddy; }; })
    mkdir -p "$caddy_dir"
    dpkg-deb -x "$download"/caddy_*.deb "$caddy_dir"
    rm -rf "$download"
  fi
  export PATH="$PATH:$caddy_dir/usr/bin"
}

# check NAME COMMAND...: one pass or one failure.
check() {
  local name=$1 started=$EPOCHREALTIME
  shift
  if "$@" >"$reports/output" 2>&1; then
    passed=$((passed + 1))
    printf '%s: ok (%s s)\n' "$name" "$(seconds_since "$started")" >&3
  else
    failed=$((failed + 1))
    printf '%s: failed\n' "$name" >&3
    cat "$reports/output" >&3
  fi
  cat "$reports/output"
}

no_output() {
  local output
  output=$("$@") || return 1
  printf '%s' "$output"
  [[ -z $output ]]
}

# go_in FOLDER ARGUMENT...: as the folder is built, and so without need of a C compiler.
go_in() { (cd "$1" && shift && CGO_ENABLED=0 go "$@"); }

go_tests() {
  local report="$reports/go.json" status=0 started=$EPOCHREALTIME
  go_in agent test -json ./... >"$report" || status=$?
  cat "$report"
  # Without "Test" it is about a whole package.
  count "go tests" "$status" "$started" \
    "$(grep -c '"Action":"pass".*"Test":' "$report" || true)" \
    "$(grep -c '"Action":"fail".*"Test":' "$report" || true)"
  [[ $status -eq 0 ]] || printf '%b' "$(sed -n 's/.*"Output":"\(.*\)"}$/\1/p' "$report" | tail -n 100)" >&3
}

# bun_tests NAME SCRIPT: a script of package.json that runs `bun test`.
bun_tests() {
  local report="$reports/$2.xml" output="$reports/$2.txt" status=0 started=$EPOCHREALTIME head total bad skipped
  printf '%s ...\n' "$1" >&3
  "$bun" run "$2" --reporter=junit --reporter-outfile="$report" >"$output" 2>&1 || status=$?
  cat "$output"
  head=$(grep -m 1 '<testsuites' "$report" || true)
  total=$(attribute tests "$head")
  bad=$(attribute failures "$head")
  skipped=$(attribute skipped "$head")
  count "$1" "$status" "$started" $((total - bad - skipped)) "$bad"
  [[ $skipped -eq 0 ]] || grep -F '(skip)' "$output" | sort -u | sed 's/^/  /' >&3 || true
  [[ $status -eq 0 ]] || grep -v '^(pass)' "$output" >&3
}

attribute() {
  if [[ $2 =~ \ $1=\"([0-9]+)\" ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi
}

# count NAME STATUS STARTED PASSED FAILED: a runner that failed without a failed test has broken, which counts as one.
count() {
  local bad=$5
  [[ $2 -eq 0 || $bad -gt 0 ]] || bad=1
  passed=$((passed + $4))
  failed=$((failed + bad))
  printf '%s: %d passed, %d failed (%s s)\n' "$1" "$4" "$bad" "$(seconds_since "$3")" >&3
}

main "$@"
