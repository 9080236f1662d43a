"""A client made with python3-websockets: ws.py URL [SUBPROTOCOL...]. lines.js has the protocol."""

import asyncio
import json
import sys

import websockets


def say(**message):
    print(json.dumps(message), flush=True)


async def listen(socket):
    try:
        async for data in socket:
            if isinstance(data, bytes):
                say(kind="binary", data=data.decode("utf-8", "replace"))
            else:
                say(kind="message", data=data)
    except websockets.ConnectionClosed:
        pass
    say(kind="close", code=socket.close_code or 1006, reason=socket.close_reason or "")


async def obey(socket):
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        command = json.loads(line)
        if "close" in command:
            await socket.close(command["close"])
        else:
            await socket.send(command["send"])


async def main(url, subprotocols):
    try:
        socket = await websockets.connect(url, subprotocols=subprotocols or None, open_timeout=10)
    except websockets.InvalidStatusCode as error:
        say(kind="error", code=error.status_code, reason=f"status {error.status_code}")
        return
    except Exception as error:
        say(kind="error", reason=repr(error))
        return
    say(kind="open")
    listening = asyncio.create_task(listen(socket))
    try:
        await obey(socket)
    finally:
        await socket.close()
        await listening


asyncio.run(main(sys.argv[1], sys.argv[2:]))
