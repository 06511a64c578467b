#!/usr/bin/env bash
# The whole of docker-compose.yml for real: builds, starts, runs recipes through the app container's command line,
# takes worker and Redis away in the middle of runs, looks at the results, and removes everything it made.
#
#   tests/compose/run.sh            needs a Docker engine with docker-compose 1.29 or v2; a quarter of an hour
#   KEEP=1 tests/compose/run.sh     leaves it running at the end, to look at
set -euo pipefail
cd "$(dirname "$0")/../.."

export POSTGRES_PASSWORD=${POSTGRES_PASSWORD:-$(head -c 18 /dev/urandom | base64 | tr -dc 'A-Za-z0-9')}
export SLIMBOARD_PORT=${SLIMBOARD_PORT:-18501}
if docker compose version >/dev/null 2>&1; then engine=(docker compose); else engine=(docker-compose); fi
compose() { "${engine[@]}" -p slimboard-test "$@"; }
slimboard() { compose exec -T app slimboard "$@"; }

started=$(date +%s)
say() { printf '%4d s  %s\n' $(($(date +%s) - started)) "$*"; }
fail() {
  say "FAILED: $*"
  compose ps
  compose logs --tail 40 app worker migrate
  exit 1
}
cleanup() { [[ -n ${KEEP:-} ]] || compose down --volumes --remove-orphans --timeout 100 >/dev/null 2>&1; }
trap cleanup EXIT

health() { docker inspect --format '{{.State.Health.Status}}' "$(compose ps -q "$1")" 2>/dev/null || echo none; }
wait_for() { # SECONDS WHAT COMMAND...
  local deadline=$(($(date +%s) + $1)) what=$2
  shift 2
  until "$@"; do
    (($(date +%s) < deadline)) || fail "waited in vain: $what"
    sleep 5 # each look costs a second of a processor
  done
  say "$what"
}
is_healthy() { [[ $(health "$1") = healthy ]]; }
field() { slimboard show "$1" --json | python3 -c "import json, sys; run = json.load(sys.stdin); print($2)"; }
has_status() { [[ $(field "$1" 'run["status"]') = "$2" ]]; }
is_at_step() { [[ $(field "$1" 'len(run["stages"])') -ge $2 && $(field "$1" 'run["status"]') = running ]]; }
is_done_once() { # RUN STAGES: done, and every stage there exactly once
  [[ $(field "$1" '[stage["position"] for stage in run["stages"]] == list(range('"$2"'))') = True ]] ||
    fail "run $1 has not each of its $2 stages once"
}

say "building the image"
compose build >/dev/null 2>&1 || fail "the image cannot be built"
say "starting"
compose up -d >/dev/null 2>&1
wait_for 300 "the page answers" is_healthy app
wait_for 300 "the worker is there" is_healthy worker

[[ $(docker inspect --format '{{.State.ExitCode}}' "$(compose ps -a -q migrate 2>/dev/null || compose ps -q migrate)") = 0 ]] ||
  fail "migrate did not end well"
[[ $(slimboard migrate) = *"at revision"* ]] || fail "migrating again is not harmless"
[[ $(compose port app 8501) = 127.0.0.1:* ]] || fail "the page can be reached from other machines"
[[ $(compose exec -T app id -u | tr -d '\r') != 0 ]] || fail "the app runs as root"
python3 -c "import urllib.request as u; assert u.urlopen('http://127.0.0.1:$SLIMBOARD_PORT/').status == 200"
say "migrated once, bound to 127.0.0.1, not root"

slimboard submit - --wait <tests/compose/small.yaml >/dev/null || fail "the small run"
is_done_once 1 3
say "a run submitted through the app container is done"
slimboard show 1

long=$(slimboard submit - <tests/compose/long.yaml | tr -d '\r')
wait_for 600 "a long run is in its second step" is_at_step "$long" 2
compose restart --timeout 100 worker >/dev/null 2>&1
say "the worker was restarted meanwhile"
wait_for 900 "the run went on and is done" has_status "$long" done
is_done_once "$long" 4

long=$(sed 's/^seed:.*//; 1a seed: 1' tests/compose/long.yaml | slimboard submit - | tr -d '\r')
wait_for 600 "another long run is in its second step" is_at_step "$long" 2
compose stop redis >/dev/null 2>&1
small=$(sed '1a seed: 1' tests/compose/small.yaml | slimboard submit - 2>/dev/null | tr -d '\r')
say "Redis was stopped, and run $small submitted without it"
compose start redis >/dev/null 2>&1
wait_for 900 "the long run is done" has_status "$long" done
wait_for 900 "the run of which Redis never heard is done" has_status "$small" done
is_done_once "$long" 4
is_done_once "$small" 3

long=$(sed '1a seed: 2' tests/compose/long.yaml | slimboard submit - | tr -d '\r')
wait_for 600 "a third long run is in its second step" is_at_step "$long" 2
compose kill worker >/dev/null 2>&1
compose up -d worker >/dev/null 2>&1
say "the worker was killed without warning and another one started"
wait_for 900 "the run was taken over and is done" has_status "$long" done
is_done_once "$long" 4

compose restart redis >/dev/null 2>&1
compose restart --timeout 100 worker >/dev/null 2>&1
sed '1a seed: 3' tests/compose/small.yaml | slimboard submit - --wait >/dev/null || fail "the last run"
say "after restarting Redis and worker, a last run is done"
slimboard runs
say "everything holds"
