#!/usr/bin/env bash
# Starts nginx with nginx.conf.tmpl, subscribes on both wires, publishes one event and shows what
# came. Exits with 1 if an event is missing. Usage: try.sh [PORT], 9004 by default.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin
port=${1:-9004}

if ! command -v nginx >/dev/null || ! [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ]; then
	echo "nginx with nchan is not installed: apt-get install nginx libnginx-mod-nchan" >&2
	exit 1
fi

folder=$(mktemp -d)
nginx=
finish() {
	[ -z "$nginx" ] || { kill "$nginx" && wait "$nginx"; } || true
	rm -rf "$folder"
}
trap finish EXIT

sed -e "s|{{.Directory}}|$folder|g; s|{{.Listen}}|127.0.0.1:$port|g" \
	-e "s|{{.Workers}}|1|g; s|{{.Connections}}|1024|g" nginx.conf.tmpl >"$folder/nginx.conf"
nginx -p "$folder" -c "$folder/nginx.conf" &
nginx=$!
for attempt in {1..100}; do
	(: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
	kill -0 "$nginx" || exit 1
	[ "$attempt" -lt 100 ] || { echo "nginx does not listen on port $port" >&2; exit 1; }
	sleep 0.05
done

# open DESCRIPTOR PATH HEADER...: subscribes, and returns when the head of the answer is read.
open() {
	local descriptor=$1 path=$2 line
	shift 2
	eval "exec $descriptor<>/dev/tcp/127.0.0.1/$port"
	printf '%s\r\n' "GET $path HTTP/1.1" 'Host: localhost' "$@" '' >&"$descriptor"
	while IFS= read -r -t 5 -u "$descriptor" line && [ "$line" != $'\r' ]; do
		case $line in HTTP/*) echo "$path: $line" ;; esac
	done
}
open 3 /sse/try:1 'Accept: text/event-stream'
open 4 /ws/try:1 'Connection: Upgrade' 'Upgrade: websocket' 'Sec-WebSocket-Version: 13' \
	'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='

event='{"hello":"world"}'
exec 5<>"/dev/tcp/127.0.0.1/$port"
printf '%s\r\n' 'POST /publish/try:1 HTTP/1.1' 'Host: localhost' "Content-Length: ${#event}" '' >&5
printf '%s' "$event" >&5
IFS= read -r -t 5 -u 5 answer
echo "/publish/try:1: $answer"

# heard DESCRIPTOR NAME: reads until the event has come.
heard() {
	local text='' byte
	while [[ $text != *"$event"* ]]; do
		if ! LC_ALL=C IFS= read -r -t 5 -N 1 -u "$1" byte; then
			echo "$2: the event has not come" >&2
			return 1
		fi
		text+=$byte
	done
	printf '%s: %q\n' "$2" "$text"
}
heard 3 /sse/try:1
heard 4 /ws/try:1
