"""What is compared: how each server is started, what is spoken to it, and which version of it this is."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
SERVERS = HERE / "servers"
PEERS = HERE / ".peers"

# Every server listens here, one at a time. Fanwire has a socket of its own for publishers.
HOST = "127.0.0.1"
PORT = 7171
PUBLISH_PORT = 7172


@dataclasses.dataclass(frozen=True)
class Server:
    """One server: `command` starts it in the foreground, `version` finds out what it is."""

    title: str
    protocol: str  # As `fanwire bench --peer` names it.
    command: list
    version: callable
    settings: str  # For the page: what is set, and why it is fair.
    source: str | None = None  # Its program or configuration, in this repository.
    publish_port: int | None = None


def _output(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    return done.stdout.strip()


def _number(text):
    found = re.search(r"\d+(\.\d+)+\S*", text)
    return found[0] if found else None


def _npm(package):
    manifest = json.loads((SERVERS / "node_modules" / package / "package.json").read_text())
    return manifest["version"]


def _on_node(package):
    return f"{package} {_npm(package)}, bufferutil {_npm('bufferutil')}, Node.js {_number(_output('node', '--version'))}"


def _locked(crate):
    lock = (SERVERS / "tokio" / "Cargo.lock").read_text()
    return re.search(rf'name = "{crate}"\nversion = "([^"]+)"', lock)[1]


def _package(name):
    """The version of a package that `install` unpacked, without Debian's part of it."""
    lines = (PEERS / "packages").read_text().splitlines()
    version = dict(line.split("\t") for line in lines)[name]
    return re.sub(r"^\d+:|[+-].*$", "", version)


def _unpacked(program):
    """The command that runs a program of the unpacked packages with the libraries that came with it."""
    libraries = ":".join(str(path) for path in sorted((PEERS / "unpacked/usr/lib").glob("*-linux-gnu*")))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(PEERS / "unpacked/usr/sbin" / program)]


def table(fanwire):
    """All servers by name, in the order of the page. `fanwire` is the program to measure."""
    bun = str(SERVERS / "node_modules/.bin/bun")
    node = ["env", "NODE_ENV=production", "node"]
    tokio = str(PEERS / "target/release/tokio-broadcast")
    nats, mosquitto, nginx = (_unpacked(name) for name in ("nats-server", "mosquitto", "nginx"))
    return {
        "fanwire": Server(
            "Fanwire",
            "fanwire",
            [str(fanwire), "serve", "--listen", f"{HOST}:{PORT}", "--publish", f"{HOST}:{PUBLISH_PORT}"]
            + ["--shards", "1", "--max-clients", "20000"],
            lambda: f"Fanwire {_number(_output(str(fanwire), '--version'))}",
            "One shard. Clients speak the JSON dialect at `/ws`, the publisher the publish socket over TCP. Everything else "
            "as it comes: `data` checked, a queue of 100 events for each client, heartbeats on.",
            publish_port=PUBLISH_PORT,
        ),
        "bun": Server(
            "Bun",
            "ws",
            [bun, str(SERVERS / "bun.js"), str(PORT)],
            lambda: f"Bun {_number(_output(bun, '--version'))}",
            "`server.publish`. No compression, no idle timeout, a queue of up to 1 GiB for each client.",
            "bun.js",
        ),
        "ws": Server(
            "npm ws",
            "ws",
            node + [str(SERVERS / "ws.cjs"), str(PORT)],
            lambda: _on_node("ws"),
            "A loop of `send` over the topic's clients. No compression, `bufferutil` installed, no limit to queues.",
            "ws.cjs",
        ),
        "socketio": Server(
            "Socket.IO",
            "socketio",
            node + [str(SERVERS / "socketio.cjs"), str(PORT)],
            lambda: f"socket.io {_npm('socket.io')} on {_on_node('ws')}",
            "Rooms. WebSockets only, no compression, no heartbeat within a run, `bufferutil` installed, the handshake's "
            "request dropped, no limit to queues.",
            "socketio.cjs",
        ),
        "tokio": Server(
            "tokio-tungstenite",
            "ws",
            [tokio, str(PORT)],
            lambda: f"tokio-tungstenite {_locked('tokio-tungstenite')}, tokio {_locked('tokio')}, "
            f"rustc {_number(_output('rustc', '--version'))}",
            "A task for each client, `tokio::sync::broadcast` with 16,384 events for each topic, one thread; what has piled "
            "up leaves in one write. Read buffers of 4 KiB in place of 128.",
            "tokio/src/main.rs",
        ),
        "nats": Server(
            "nats-server",
            "nats",
            nats + ["-c", str(SERVERS / "nats.conf"), "-a", HOST, "-p", str(PORT)],
            lambda: f"nats-server {_number(_output(*nats, '--version'))}",
            "Core NATS over TCP. `max_pending` 1 GB, `write_deadline` 20 s, no ping within a run.",
            "nats.conf",
        ),
        "mosquitto": Server(
            "mosquitto",
            "mqtt",
            mosquitto + ["-c", str(SERVERS / "mosquitto.conf")],
            lambda: f"mosquitto {_number(_output(*mosquitto, '-h').splitlines()[0])}",
            "MQTT 3.1.1 over TCP, QoS 0, no persistence, no log, `set_tcp_nodelay`, no limit to queues.",
            "mosquitto.conf",
        ),
        "nchan": Server(
            "nchan",
            "http",
            nginx + ["-p", str(PEERS), "-e", "stderr", "-c", str(SERVERS / "nchan.conf")],
            lambda: f"nchan {_package('libnginx-mod-nchan')}, nginx {_number(_output(*nginx, '-v'))}",
            "WebSocket clients, events by HTTP POST over one connection that is kept. One worker, 4,000 events kept for "
            "5 s, no access log, no ping.",
            "nchan.conf",
        ),
    }


def version(server):
    """What a server says it is. None where it is not there or does not answer."""
    try:
        said = server.version()
    except (OSError, KeyError, IndexError, TypeError, ValueError):
        return None
    return None if "None" in said else said


def shell(command):
    """A command as one would type it at the root of this repository."""
    program, *rest = command
    # Where cargo builds is everybody's own choice.
    program = "fanwire" if pathlib.Path(program).name == "fanwire" else program
    return shlex.join([program, *rest]).removeprefix("env ").replace(f"{REPOSITORY}{os.sep}", "")
