"""A peer for foreign_test.go, on the package websockets. What peer.cjs is for Node.

python3 peer.py deflate|plain            serves
python3 peer.py deflate|plain ws://…     is a client, and checks
python3 peer.py deflate|plain ws://… -   is a client that waits for a message
"""

import asyncio
import os
import sys

import websockets

deflate = sys.argv[1] == "deflate"
options = {"compression": "deflate" if deflate else None, "max_size": None}


async def send(ws, data, fragmented):
    """Sends a message whole, or in four fragments."""
    size = -(-len(data) // 4)
    await ws.send([data[at : at + size] for at in range(0, len(data), size)] if fragmented else data)


async def serve():
    async def connected(ws):
        await ws.send("hello")
        async for message in ws:
            command, *rest = message.split(" ", 2) if isinstance(message, str) else [""]
            if command == "close":
                await ws.close(int(rest[0]), rest[1])
            elif command == "ping":
                await (await ws.ping("are you there"))
                await ws.send("pong are you there")
            else:
                await send(ws, message, len(message) % 2 == 1)

    async def report(ws):
        try:
            await connected(ws)
        except websockets.ConnectionClosed:
            pass  # with a code other than 1000 and 1001
        print("closed", ws.close_code, ws.close_reason, flush=True)

    async with websockets.serve(report, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


async def dial():
    ws = await websockets.connect(sys.argv[2], **options)
    assert [e.name for e in ws.extensions] == (["permessage-deflate"] if deflate else [])
    assert await ws.recv() == "hello"
    return ws


async def check():
    ws = await dial()
    count = 1
    for size in [1, 2, 125, 126, 127, 1023, 32768, 65535, 65536, 65537, 262143, 1 << 20]:
        for data in os.urandom(size), ("lorem ipsum " * size)[:size]:
            for fragmented in False, True:
                await send(ws, data, fragmented)
                got = await ws.recv()
                assert got == data, f"{size} bytes have come back as {len(got)} others"
                count += 1

    await (await ws.ping("anybody"))
    await ws.send("ping")
    assert await ws.recv() == "pong are you there"
    print("messages", count + 1, flush=True)  # of the server

    await ws.close(3001, "see you – 👋")
    assert ws.close_code == 3001
    ws = await dial()
    await ws.send("close 4002 that is – enough")
    await ws.wait_closed()
    assert (ws.close_code, ws.close_reason) == (4002, "that is – enough")


async def wait():
    ws = await dial()
    print("open", os.getpid(), flush=True)
    print("message", await ws.recv(), flush=True)
    await ws.close()


asyncio.run([serve, check, wait][len(sys.argv) - 2]())
