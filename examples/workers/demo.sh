#!/usr/bin/env bash
# `make demo`: a Redis, a gateway and all example workers, on this machine, until Ctrl-C. Redis runs on
# a free port and keeps its files in a temporary folder, which goes with it.
#
#   LISTEN    where the gateway serves      (127.0.0.1:8080)
#   MILLRACE  the gateway's binary          (bin/millrace)
#   WORKERS   the workers' binary           (bin/workers)
#   SPEED     times as fast as it happened the campaigns are replayed   (3600)
set -eu
cd "$(dirname "$0")/../.."
listen=${LISTEN:-127.0.0.1:8080}
millrace=${MILLRACE:-bin/millrace}
workers=${WORKERS:-bin/workers}
speed=${SPEED:-3600}
here=examples/workers

say() { echo "demo: $*"; }
fail() {
	echo "demo: $*" >&2
	exit 1
}

# Debian keeps servers in sbin, which a plain user's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin
command -v redis-server >/dev/null || fail "redis-server is not installed (apt-get install redis-server);" \
	"'make run' shows the same workers without a Redis"
for binary in "$millrace" "$workers"; do
	[ -x "$binary" ] || fail "$binary is not there: run 'make demo', which builds it"
done
# Asked before anything is started: whoever answers later may be the gateway.
if (exec 3<>"/dev/tcp/${listen%:*}/${listen##*:}") 2>/dev/null; then
	fail "another program serves on $listen (ss -ltnp 'sport = :${listen##*:}' shows which):" \
		"stop it, or choose another port with LISTEN=127.0.0.1:PORT"
fi

# Every process by its name, so that the end names none that somebody else has started. Each is in a
# session of its own: Ctrl-C is heard here alone, and the order of the end is ours.
declare -A started=()
pause= # the sleep that is waited for
folder=$(mktemp -d)
start() { # start NAME COMMAND...
	setsid "${@:2}" </dev/null &
	started[$1]=$!
}
alive() { kill -0 "${started[$1]}" 2>/dev/null; }
stop() { # stop NAME...: asks each, waits, and insists after five seconds
	local name tries
	for name in "$@"; do
		[ -n "${started[$name]:-}" ] && kill "${started[$name]}" 2>/dev/null || true
	done
	for name in "$@"; do
		[ -n "${started[$name]:-}" ] || continue
		for ((tries = 0; tries < 50; tries++)); do
			alive "$name" || break
			sleep 0.1
		done
		if alive "$name"; then kill -KILL "${started[$name]}" 2>/dev/null || true; fi
		wait "${started[$name]}" 2>/dev/null || true
		unset "started[$name]"
	done
}
finish() {
	trap '' INT TERM
	[ -z "$pause" ] || kill "$pause" 2>/dev/null || true
	stop checksums machine workers # while somebody still listens to their last words
	stop gateway
	stop redis
	rm -rf "$folder"
	say "all ended"
}
trap finish EXIT
trap 'echo; exit 0' INT TERM

answers() { # does a Redis answer at that port, and is it the one that was started?
	local line
	exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'CONFIG GET dir\r\n' >&3
	while read -r -t 2 line <&3; do
		[ "${line%$'\r'}" = "$folder" ] && break
	done
	exec 3>&-
	[ "${line%$'\r'}" = "$folder" ]
} 2>/dev/null

# A port may be taken between the choice and the start: then the server ends, and another is tried.
for ((attempt = 0; attempt < 10; attempt++)); do
	port=$((20000 + RANDOM % 10000))
	start redis redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$folder" \
		--logfile "$folder/redis.log"
	for ((tries = 0; tries < 100; tries++)); do
		alive redis || break
		answers "$port" && break 2
		sleep 0.1
	done
	stop redis
	port=
done
[ -n "$port" ] || fail "redis-server does not start: $(tail -n 3 "$folder/redis.log" 2>/dev/null)"
export REDIS_URL=redis://127.0.0.1:$port

start gateway "$millrace" serve --config "$here/millrace.yaml" --redis "$REDIS_URL" --listen "$listen" --drain-timeout 3s
for ((tries = 0; ; tries++)); do
	alive gateway || fail "the gateway did not start, see above; LISTEN=127.0.0.1:PORT chooses another port"
	(exec 3<>"/dev/tcp/${listen%:*}/${listen##*:}") 2>/dev/null && break
	((tries < 100)) || fail "the gateway does not serve on $listen"
	sleep 0.1
done

command -v ffmpeg >/dev/null || say "ffmpeg is not installed (apt-get install ffmpeg): titancore draws and encodes its frames itself"
start workers "$workers" --speed "$speed" all
if /usr/bin/python3 -c 'import redis' 2>/dev/null; then
	start machine /usr/bin/python3 "$here/python/machine.py" --name here
else
	say "python3-redis is not installed (apt-get install python3-redis): no machine:here"
fi
if command -v node >/dev/null; then
	start checksums node "$here/node/checksums.mjs" --name docs docs
else
	say "node is not installed (apt-get install nodejs): no files:docs"
fi

cat <<WORDS
demo: the dashboard      http://$listen/?userId=demo
demo: Redis              $REDIS_URL    (redis-cli -p $port MONITOR)
demo: a render           curl -N 'http://$listen/api/stream?channel=job_progress:job_123&since=0'
demo: its stages         curl -N 'http://$listen/api/stream?channel=video_render:job_123'
demo: a campaign         curl -N 'http://$listen/api/stream?channel=campaign_metrics:camp_456'
demo: your alerts        curl -N 'http://$listen/api/stream?channel=alerts:demo&userId=demo'
demo: this machine       curl -N 'http://$listen/api/stream?channel=machine:here'
demo: a folder           curl -N 'http://$listen/api/stream?channel=files:docs&since=0'
demo: Ctrl-C ends all
WORDS

# Bash hears a signal only between two commands: it waits for its children, of whom none but
# checksums ends by itself.
while alive redis && alive gateway && alive workers; do
	sleep 1 &
	pause=$!
	wait "$pause" || true
done
fail "one of the processes has ended, see above"
