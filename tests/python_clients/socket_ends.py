"""Both ends of WebSockets through the gateway.

`socket_ends.py serve` prints its port, then how each connection ends.
`socket_ends.py talk URL TOKEN [CERTIFICATE]` prints the result of each kind of message and ending.
`socket_ends.py feed URL TOKEN [CERTIFICATE]` prints `open`, and at the end `closed CODE NEWEST`.
The ends of a feed continuously send each other the time; NEWEST is the latest that arrived, in ns.
"""

import asyncio
import ssl
import sys
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def exchange_times(socket):
    newest = 0

    async def send():
        while True:
            await socket.send(str(time.time_ns()))
            await asyncio.sleep(0.002)

    sending = asyncio.create_task(send())
    try:
        while True:
            newest = int(await socket.recv())
            yield newest
    except ConnectionClosed:
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def served(socket):
    fields = socket.request.headers
    assert "authorization" not in fields, fields
    newest = 0
    if socket.request.path.endswith("/feed"):
        # Replies only after the first message, so that the client's `open` means that times have passed both
        # ways.
        newest = int(await socket.recv())
        async for newest in exchange_times(socket):
            pass
    else:
        try:
            async for message in socket:
                if message == "who":
                    message = fields["x-permgate-user"]
                if message == "bye":
                    await socket.close(4002, "as you wish")
                else:
                    await socket.send(message)
        except ConnectionClosed:
            pass
    print("ended", socket.close_code, newest, flush=True)


async def service():
    async with serve(served, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


def dial(url, token, certificate=None):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificate)
    fields = {"Authorization": "Bearer " + token}
    return connect(url, additional_headers=fields, ssl=context, max_size=None, proxy=None)


async def talk(*where):
    async with dial(*where) as socket:
        print("compressed", bool(socket.protocol.extensions))
        for name, message in [
            ("text", "grüß dich"),
            ("binary", bytes(range(256))),
            ("empty", ""),
            ("large", bytes(range(256)) * 4096),
            ("large text", "ж" * (1 << 19)),
        ]:
            await socket.send(message)
            print(name, await socket.recv() == message)
        await socket.send(["in", " ", "pieces"])
        print("pieces", await socket.recv())
        await socket.send("who")
        print("who", await socket.recv())
        await (await socket.ping(b"there?"))
        print("pong True")
        await socket.close(4001, "enough")
        print("own close", socket.close_code)
    async with dial(*where) as socket:
        await socket.send("bye")
        await socket.wait_closed()
        print("their close", socket.close_code, socket.close_reason)
    try:
        async with dial(where[0], "pgt_x", *where[2:]):
            print("refused never")
    except InvalidStatus as refusal:
        print("refused", refusal.response.status_code)


async def feed(*where):
    async with dial(*where) as socket:
        newest = 0
        async for time_sent in exchange_times(socket):
            if not newest:
                print("open", flush=True)
            newest = time_sent
        print("closed", socket.close_code, newest, flush=True)


asyncio.run({"serve": service, "talk": talk, "feed": feed}[sys.argv[1]](*sys.argv[2:]))
