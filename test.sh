#!/bin/bash
# Runs every test and ends with the line "N passed, N failed". Installs what the tests need, but no daemon and nothing
# on the PATH; an installed bhatti is not touched. `--unit` leaves out the tests on real machines, `--long` adds those that take
# hours: many seeds, many kills, and the product under a real KVM in a machine that has one.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log="$root/dist/test.log"
# shellcheck source=scripts/setup.sh
source "$root/scripts/setup.sh"

# Only the tests run these: real terminals, shells, certificates and clients.
test_programs=(
  tmux:tmux zsh:zsh fish:fish busybox:busybox openssl:openssl curl:curl wget:wget umoci:umoci getfattr:attr
  musl-gcc:musl-tools buildah:buildah
)
caddy_dir=/var/cache/bhatti/caddy
registry_dir=/var/cache/bhatti/docker-registry
# How long each end-to-end file took, so that the longest begin first; in a fresh checkout what they usually take.
timings="$root/dist/test-timings.json"
usual_timings="$root/test/e2e/timings.json"

# About the machine itself: they run with forked machines, and again with clones.
cloned_files=(./test/e2e/confine.vm.test.ts)

passed=0
failed=0
# Tests that failed beside others and passed alone; they are among the passed.
recovered=0

main() {
  case ${1:-} in
    "" | --unit | --long) local extent=${1:-} ;;
    *) fail "usage: ./test.sh [--unit | --long]" ;;
  esac
  cd "$root"
  open_log
  reports=$(mktemp -d)
  trap 'report_failure; rm -rf "$reports"' EXIT
  host_programs+=("${build_programs[@]}" "${test_programs[@]}")
  host_files+=("${build_files[@]}")
  [[ $extent != --long ]] || host_programs+=(chromium:chromium)
  step "Debian packages" install_packages
  step "Caddy" unpack_server caddy "$caddy_dir"
  step "docker-registry" unpack_server docker-registry "$registry_dir"
  step "npm packages" install_npm_packages
  step "build" build
  give_back

  check "biome and tsc" "$bun" run check
  check "gofmt" no_output gofmt -l agent jail unpack
  check "go vet of agent" go_in agent vet ./...
  check "go vet of jail" go_in jail vet ./...
  check "go vet of unpack" go_in unpack vet ./...
  go_tests
  # Tests that have a short and a long form look at it.
  [[ $extent != --long ]] || export BHATTI_TEST_LONG=1
  local repeat
  repeat=$([[ $extent == --long ]] || echo yes)
  REPEAT=$repeat bun_tests "unit tests" run test --parallel=2
  if [[ $extent != --unit ]]; then
    [[ -e $timings ]] || cp "$usual_timings" "$timings"
    # Leftovers of interrupted runs would take their share of the host.
    "$bun" test/support/sweep.ts >&3 || true
    # Each file has an installation of its own. A third of its time is waiting, so three keep two processors busy; each
    # of them then has less of them, and longer to answer.
    export BHATTI_TEST_PATIENCE=${BHATTI_TEST_PATIENCE:-2}
    export BHATTI_TEST_STARTS="$reports/starts"
    REPEAT=$repeat bun_tests "end-to-end tests" run test:e2e --parallel=3 --timings="$timings" --update-timings
    tell_starts
    # Where machines cannot be forked all are clones, as the first ones of each file are above.
    local cloned=("${cloned_files[@]}")
    [[ $extent != --long ]] || cloned=(test/e2e)
    BHATTI_TEST_CONFIG="forks: off" REPEAT=$repeat bun_tests "the same with clones alone" \
      test "${cloned[@]}" --timeout 180000 --parallel=3
    check "ratios of the benchmark" "$bun" run bench --check
  fi
  [[ $extent != --long ]] || long_tests
  [[ $recovered -eq 0 ]] || printf 'failed beside others, passed alone: %d\n' "$recovered" >&3
  printf '%d passed, %d failed\n' "$passed" "$failed" >&3
  [[ $failed -eq 0 ]]
}

# Runs the long form in docs/TESTING.md, each part a command that can be run by hand.
long_tests() {
  SIM_SEEDS=1000 bun_tests "simulation, 1000 seeds" test test/sim --timeout 7200000
  FAIL_POINTS=all bun_tests "every point of failure" test test/e2e/fail-points.vm.test.ts --timeout 7200000
  LAYER_STACKS=1000 bun_tests "layers, 1000 stacks" test src/image/layers-model.test.ts --timeout 3600000
  local target
  for target in FuzzLayer FuzzMerge; do
    check "$target, 5 minutes" go_in unpack test -fuzz "$target" -fuzztime 5m -fuzzminimizetime 5x .
  done
  MODEL_RUNS=40 bun_tests "model, 40 runs" test test/e2e/model.vm.test.ts --timeout 7200000
  POWER_CYCLES=50 bun_tests "power, 50 cycles" test test/e2e/power.vm.test.ts --timeout 3600000
  STRESS_CLONES=50 bun_tests "memory, 50 clones" test test/e2e/memory.vm.test.ts --timeout 3600000
  KILLS=55 SEED=$RANDOM bun_tests "55 kills at random moments" test test/e2e/chaos.vm.test.ts --timeout 7200000
  ROUNDS=100 SEED=$RANDOM bun_tests "requests at the moment of a pause" test test/e2e/transitions.vm.test.ts --timeout 7200000
  check "chaos, 20 minutes" "$bun" run chaos --minutes 20 --seed "$RANDOM"
  BUILD_KILLS=all bun_tests "builds, every kill" test test/e2e/build.vm.test.ts --timeout 3600000
  bun_tests "rare builds" test test/long/build.test.ts --timeout 3600000
  bun_tests "sandboxes of an earlier build" test test/long/former-build.test.ts --timeout 3600000
  bun_tests "forked machines under Debian 13" test test/long/debian-13.test.ts --timeout 3600000
  bun_tests "under KVM in emulation" run test:long
}

# unpack_server NAME DIRECTORY: its package would start a server on this host, so it is only unpacked.
unpack_server() {
  local name=$1 directory=$2
  if command -v "$name" >/dev/null; then
    say "all there"
    return
  fi
  if [[ ! -x $directory/usr/bin/$name ]]; then
    advice="see that apt works (apt-get update)"
    local download
    download=$(mktemp -d)
    chmod 755 "$download"
    (cd "$download" && { apt-get download "$name" || { apt-get update && apt-get download "$name"; }; })
    mkdir -p "$directory"
    dpkg-deb -x "$download/$name"_*.deb "$directory"
    rm -rf "$download"
  fi
  export PATH="$PATH:$directory/usr/bin"
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
  local report="$reports/go.json" folder status=0 started=$EPOCHREALTIME
  for folder in agent unpack; do
    go_in "$folder" test -json ./... >>"$report" || status=$?
  done
  cat "$report"
  # Without "Test" it is about a whole package.
  count "go tests" "$status" "$started" \
    "$(grep -c '"Action":"pass".*"Test":' "$report" || true)" \
    "$(grep -c '"Action":"fail".*"Test":' "$report" || true)"
  [[ $status -eq 0 ]] || printf '%b' "$(sed -n 's/.*"Output":"\(.*\)"}$/\1/p' "$report" | tail -n 100)" >&3
}

# bun_tests NAME ARGUMENT...: `bun test` with arguments, or `bun run` with a script of package.json that is one. With
# REPEAT=yes in its environment it repeats files that failed.
bun_tests() {
  local report="$reports/$1.xml" output="$reports/$1.txt" status=0 started=$EPOCHREALTIME total bad skipped note=""
  printf '%s ...\n' "$1" >&3
  "$bun" "${@:2}" --reporter=junit --reporter-outfile="$report" >"$output" 2>&1 || status=$?
  cat "$output"
  [[ $status -eq 0 ]] || grep -v '^(pass)' "$output" >&3 || true
  read -r total bad skipped < <(totals "$report")
  [[ $status -eq 0 || ${REPEAT:-} != yes ]] || repeat_failed
  count "$1" "$status" "$started" $((total - bad - skipped)) "$bad" "$note"
  slowest "$report"
  [[ $skipped -eq 0 ]] || grep -F '(skip)' "$output" | sort -u | sed 's/^/  /' >&3 || true
}

# Runs every file with a failed test once more, by itself, and lets that run decide: a broken rule fails again, a wait
# that was too short on a busy host does not. Reads and changes the variables of bun_tests.
repeat_failed() {
  local file files alone="$reports/alone.xml" result=0 was now before=$recovered
  readarray -t files < <(failed_tests "$report" "$output" | sed 's/: .*//' | sort -u)
  if [[ ${#files[@]} -gt 5 ]]; then
    say "${#files[@]} files failed, which is no coincidence: none is run again"
    return
  fi
  [[ ${#files[@]} -gt 0 ]] || return 0
  for file in "${files[@]}"; do
    printf '%s alone ...\n' "$file" >&3
    rm -f "$alone"
    # In a worker, so that a test that ends the whole process is in the report too.
    "$bun" test "./$file" --timeout 180000 --parallel=1 --reporter=junit --reporter-outfile="$alone" \
      >"$reports/alone.txt" 2>&1 || result=$?
    cat "$reports/alone.txt"
    failed_tests "$report" "$output" | grep -F "$file: " | sort >"$reports/was"
    failed_tests "$alone" "$reports/alone.txt" | sort | tee "$reports/now" | sed 's/^/failed alone: /' >&3
    comm -23 "$reports/was" "$reports/now" | sed 's/^/failed beside others, passed alone: /' >&3
    recovered=$((recovered + $(comm -23 "$reports/was" "$reports/now" | wc -l)))
    read -ra was < <(totals "$report" "$file")
    read -ra now < <(totals "$alone" "$file")
    total=$((total - was[0] + now[0])) bad=$((bad - was[1] + now[1])) skipped=$((skipped - was[2] + now[2]))
  done
  status=$result
  note=", $((recovered - before)) of the passed only alone"
}

# failed_tests REPORT OUTPUT: a line "FILE: GROUP > NAME" for each. The report has one element a line; errors outside of
# tests are only in the output, below the name of their file.
failed_tests() {
  sed -En '/<testcase /h; /<failure/{g; s/.*name="([^"]*)" classname="([^"]*)".* file="([^"]*)".*/\3: \2 > \1/p}' "$1" |
    sed "s/:  > /: /; s/&lt;/</g; s/&gt;/>/g; s/&quot;/\"/g; s/&apos;/'/g; s/&amp;/\&/g"
  awk '/^[^ ]+\.test\.ts:$/ { file = $1 } /^# Unhandled error/ { print file " an error outside of its tests" }' "$2"
}

# totals REPORT [FILE]: how many tests there were, failed and were skipped, in all or in a file.
totals() {
  local line
  line=$(grep -m 1 "<testsuites\? name=\"${2:-bun test}\"" "$1" || true)
  echo "$(attribute tests "$line") $(attribute failures "$line") $(attribute skipped "$line")"
}

# The files that took longest, for whoever wants to make it shorter.
slowest() {
  # The last one reads everything: a program whose reader has left would fail, and with it the script.
  sed -n 's/^ *<testsuite .*file="\([^"]*\)".* time="\([0-9.]*\)".*/\2 s \1/p' "$1" | sort -u -k3 | sort -rn |
    sed -n '1,8s/^/== slow: /p'
}

# How the sandboxes of the tests came into being.
tell_starts() {
  [[ -e $BHATTI_TEST_STARTS ]] || return 0
  sed 's/},{/\n/g' "$BHATTI_TEST_STARTS" | sed -n 's/.*"from":"\([a-z]*\)","count":\([0-9]*\).*/\1 \2/p' |
    awk '{ count[$1] += $2 } END { printf "== sandboxes: %d forked, %d cloned, %d from a pool, %d copies\n",
      count["fork"], count["template"], count["pool"], count["sandbox"] }' | tee /dev/fd/3
}

attribute() {
  if [[ $2 =~ \ $1=\"([0-9]+)\" ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi
}

# count NAME STATUS STARTED PASSED FAILED [NOTE]: a runner that failed without a failed test has broken, which counts as one.
count() {
  local bad=$5
  [[ $2 -eq 0 || $bad -gt 0 ]] || bad=1
  passed=$((passed + $4))
  failed=$((failed + bad))
  printf '%s: %d passed, %d failed%s (%s s)\n' "$1" "$4" "$bad" "${6:-}" "$(seconds_since "$3")" >&3
}

main "$@"
