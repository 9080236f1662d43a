#!/usr/bin/env python3
"""Tells how this machine does: machine:NAME is a state, SET once a second from /proc.

All that a publisher needs is a client of Redis, here redis-py (Debian: python3-redis). The value
expires after three intervals, so that the page of a machine that is gone is told
{"type":"deleted"} rather than shown old numbers.

    ./machine.py --redis redis://127.0.0.1:6379
    curl -N 'http://127.0.0.1:8080/api/stream?channel=machine:NAME'
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from datetime import datetime, timezone

import redis


def memory():
    """Bytes of memory, in all and available."""
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":", 1) for line in file)
    return tuple(int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))


def processor():
    """Ticks of all processors since boot: busy ones, and all."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]  # idle, and waiting for a disk
    return sum(ticks) - idle, sum(ticks)


def measure(name, before):
    """One value of the state, and the ticks that the next one begins from."""
    now = processor()
    busy, ticks = now[0] - before[0], now[1] - before[1]
    total, available = memory()
    with open("/proc/loadavg") as file:
        load = float(file.readline().split()[0])
    return {
        "type": "machine",
        "name": name,
        "load": load,
        "cpuPercent": round(100 * busy / ticks, 1) if ticks > 0 else 0,
        "memoryBytes": total,
        "memoryUsedPercent": round(100 * (total - available) / total, 1),
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }, now


def main():
    parser = argparse.ArgumentParser(description="Tells how this machine does, on the channel machine:NAME.")
    parser.add_argument("--redis", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), metavar="URL")
    parser.add_argument("--name", default=re.sub(r"[^A-Za-z0-9_.-]", "-", os.uname().nodename), help="part of the channel's name")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS")
    options = parser.parse_args()
    if not re.fullmatch(r"[A-Za-z0-9_.@=|+-]{1,128}", options.name):
        parser.error("--name: can't be in a channel's name")
    if not 0.01 <= options.interval <= 3600:
        parser.error("--interval: must be 0.01 to 3600 seconds")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    client = redis.Redis.from_url(options.redis, socket_timeout=5, socket_connect_timeout=5)
    ticks, away = processor(), False
    while True:
        time.sleep(options.interval)
        value, ticks = measure(options.name, ticks)
        try:
            client.set(f"machine:{options.name}", json.dumps(value), px=int(3000 * options.interval))
            away = False
        except redis.RedisError as error:  # the next value replaces this one
            if not away:
                print(f"machine.py: Redis took no value, and is tried again: {error}", file=sys.stderr)
            away = True


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
