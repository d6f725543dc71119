#!/usr/bin/env bash
# Proves compose.yaml on a real engine. Not part of the tests: it needs Docker, or something that stands in for it.
#
#   tests/compose.sh                                   with docker compose
#   COMPOSE="docker-compose" ENGINE=podman tests/compose.sh
#
# Starts the system with three workers under a project name and ports of its own, turns the sample house into 60 GLBs,
# and checks: jobs ran on all three workers; kill -9 of one of them, and of Redis, loses nothing; containers are
# non-root and cannot write their root; Redis is not published. Prints figures, and removes all of it again.
set -euo pipefail
cd "$(dirname "$0")/.."
COMPOSE=${COMPOSE:-docker compose}
ENGINE=${ENGINE:-docker}
export PORT=${PORT:-18000} DASHBOARD_PORT=${DASHBOARD_PORT:-19181} API_KEYS=${API_KEYS:-$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')}
project=longhaul-proof-$$
url=http://127.0.0.1:$PORT
compose() { $COMPOSE -p "$project" "$@"; }
get() { curl -sS --max-time 10 -H "X-API-Key: $API_KEYS" "$@"; }
say() { printf '== %s\n' "$*"; }
die() { say "FAILED: $*"; compose logs --tail=20 || true; exit 1; }
containers() { $ENGINE ps -q --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
trap 'compose down -v --remove-orphans -t 5 >/dev/null 2>&1 || true' EXIT

submit() { # $1: number of the job → its id
  get "$url/ifcconvert" -H 'content-type: application/json' \
    -d "{\"input_filename\": \"/examples/house.ifc\", \"output_filename\": \"/output/converted/house-$1.glb\"}" |
    sed -n 's/.*"job_id": *"\([^"]*\)".*/\1/p'
}
submit_all() { # $1…$2 → $ids
  ids=()
  for n in $(seq "$1" "$2"); do
    id=$(submit "$n")
    [ -n "$id" ] || die "job $n was not accepted"
    ids+=("$id")
  done
}
all_finish() { # $1: seconds
  local end=$((SECONDS + $1)) id status
  for id in "${ids[@]}"; do
    until status=$(get "$url/jobs/$id/status") && grep -q '"status": *"finished"' <<<"$status"; do
      grep -q '"status": *"failed"' <<<"$status" && die "$status"
      ((SECONDS < end)) || die "$id is not finished after $1 s: $status"
      sleep 0.5
    done
  done
}
workers_of() { # how many of $ids each worker ran
  for id in "${ids[@]}"; do
    # the record names it at the top, and again at each attempt
    get "$url/jobs/$id" | grep -o '"worker": *"[^"]*"' | sed 1q
  done | sort | uniq -c | sort -rn
}

# Operations of one's own, by the file that SERVICES names, and a setting of each process.
SERVICES=$(mktemp --suffix=.json)
chmod a+r "$SERVICES"
echo '{"operations": {"again": {"service": "ifcconvert", "url": "http://ifcconvert:8000", "path": "/ifcconvert"}}}' >"$SERVICES"
export SERVICES LOG_FORMAT=json MAX_UPLOAD_BYTES=7KiB

say "build and start, three workers"
began=$SECONDS
compose up -d --build --scale worker=3 >/dev/null
until curl -sf --max-time 2 "$url/readyz" >/dev/null; do
  ((SECONDS - began < 900)) || die "the gateway is not ready"
  sleep 1
done
say "ready after $((SECONDS - began)) s"

say "health"
began=$SECONDS
until [ "$($ENGINE ps --filter "label=com.docker.compose.project=$project" --format '{{.Status}}' | grep -c '(healthy)')" = 8 ]; do
  ((SECONDS - began < 90)) || { $ENGINE ps --format '{{.Names}} {{.Status}}'; die "not all are healthy"; }
  sleep 1
done
say "all eight containers healthy"

say "hardening"
for service in redis gateway worker ifcconvert ifc2json ifcclash; do
  for container in $(containers $service); do
    uid=$($ENGINE exec "$container" id -u)
    [ "$uid" != 0 ] || die "$service runs as root"
    if $ENGINE exec "$container" sh -c 'touch /intruder' 2>/dev/null; then die "$service can write its root"; fi
    caps=$($ENGINE exec "$container" sh -c 'grep CapBnd /proc/self/status')
    say "$service: uid $uid, read-only root, ${caps//$'\t'/ }"
  done
done
[ -z "$($ENGINE port "$(containers redis)")" ] || die "Redis is published"
$ENGINE port "$(containers gateway)"
[ "$(curl -s -o /dev/null -w '%{http_code}' "$url/jobs/x")" = 401 ] || die "no key is needed"

say "settings of .env reach the processes"
get "$url/openapi.json" | grep -q '"/again"' || die "the file of SERVICES did not reach the gateway"
status=$(head -c 8192 /dev/zero | get -o /dev/null -w '%{http_code}' "$url/upload/ifc" -F 'file=@-;filename=x.ifc')
[ "$status" = 413 ] || die "MAX_UPLOAD_BYTES did not reach the gateway: $status"

say "60 jobs"
began=$SECONDS
submit_all 1 60
all_finish 300
say "finished after $((SECONDS - began)) s; jobs by worker:"
workers_of | tee /tmp/$project.workers
[ "$(wc -l </tmp/$project.workers)" = 3 ] || die "not all three workers had jobs"
rm -f /tmp/$project.workers
$ENGINE exec "$(containers ifcconvert)" ls -l /output/converted/house-60.glb
finished=$(compose logs --no-color worker | grep -c '"message":"job finished"' || true)
[ "$finished" -ge 60 ] || die "the workers' logs name $finished finished jobs of 60"

say "kill -9 of a worker with 30 jobs under way"
began=$SECONDS
submit_all 61 90
$ENGINE kill -s KILL "$(containers worker | head -1)" >/dev/null
all_finish 300
say "all finished after $((SECONDS - began)) s (the lease is 30 s)"

say "kill -9 of Redis with 30 jobs under way"
began=$SECONDS
submit_all 91 120
$ENGINE kill -s KILL "$(containers redis)" >/dev/null
compose start redis >/dev/null 2>&1 || compose up -d --no-recreate >/dev/null 2>&1
all_finish 300
say "all finished after $((SECONDS - began)) s"
[ "$(grep -c . <<<"$(containers worker)")" -ge 2 ] || die "workers are gone"

say "down"
began=$SECONDS
compose down -v --remove-orphans >/dev/null 2>&1
say "stopped after $((SECONDS - began)) s, as idle workers need not drain"
trap - EXIT
say "proved"
