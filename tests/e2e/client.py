"""A WebSocket client (Python `websockets`) that speaks the lines of `client.mjs`."""

import asyncio
import json
import sys

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Opcode


def tell(line):
    print(json.dumps(line), flush=True)


class Connection(ClientConnection):
    def process_event(self, event):
        # The library answers pings by itself and tells nobody: this looks on.
        if getattr(event, "opcode", None) is Opcode.PING:
            tell({"ping": bytes(event.data).hex()})
        super().process_event(event)


async def obey(ws):
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        told = json.loads(line)
        if "send" in told:
            await ws.send(told["send"])
        if "sendBinary" in told:
            await ws.send(bytes.fromhex(told["sendBinary"]))
        if "ping" in told:
            data = bytes.fromhex(told["ping"])
            answered = await ws.ping(data)
            answered.add_done_callback(lambda _: tell({"pong": data.hex()}))
        if "close" in told:
            await ws.close(told["close"])


async def main():
    # Its own pings are off: what keeps the connection is what the test looks at.
    async with connect(sys.argv[1], ping_interval=None, create_connection=Connection) as ws:
        tell({"open": True})
        obeying = asyncio.create_task(obey(ws))
        try:
            while True:
                message = await ws.recv()
                tell({"text": message} if isinstance(message, str) else {"binary": message.hex()})
        except websockets.ConnectionClosed:
            pass
        tell({"closed": {"code": ws.close_code, "reason": ws.close_reason}})
        obeying.cancel()


asyncio.run(main())
