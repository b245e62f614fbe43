"""A Python dilation peer for the interop tests: one JSON command a line on standard input, one JSON event a
line on standard output. `README.md` beside this file lists both. It ends when standard input does."""

import argparse
import hashlib
import json
import os
import sys
import time

# Only events may appear on the real standard output: what the packages print goes to standard error.
EVENTS = os.dup(1)
os.dup2(2, 1)

from twisted.internet import reactor, stdio  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer  # noqa: E402
from twisted.internet.protocol import Factory, Protocol  # noqa: E402
from twisted.logger import LogLevel, globalLogBeginner, formatEvent  # noqa: E402
from twisted.protocols.basic import LineOnlyReceiver  # noqa: E402
from wormhole import wormhole  # noqa: E402
from wormhole._dilation import manager as dilation_manager  # noqa: E402
from wormhole._dilation.roles import LEADER  # noqa: E402
from wormhole._status import Connected as MailboxConnected  # noqa: E402
from zope.interface import implementer  # noqa: E402

from data import data  # noqa: E402


def microseconds():
    """The machine's clock, which all processes share."""
    return int(time.time() * 1e6)


@implementer(IPushProducer)
class Pump:
    """Writes `size` bytes of `data(seed)` in writes of `chunk`, one write a reactor turn or at `rate` bytes a
    second, and stops when told to: a well-behaved producer, so that memory stays flat however large the transfer.
    It also stops at `hold` bytes, until it is released."""

    def __init__(self, channel, options, done):
        self.channel, self.done = channel, done
        self.size, self.seed = options["size"], options.get("seed", 0)
        self.chunk, self.hold = options.get("chunk", 65536), options.get("hold")
        rate = options.get("rate")
        self.interval = self.chunk / rate if rate else 0
        self.offset, self.paused, self.call = 0, False, None
        channel.transport.registerProducer(self, True)
        if not self.paused:
            self.resumeProducing()

    def pauseProducing(self):
        self.paused = True
        if self.call is not None:
            self.call.cancel()
            self.call = None

    def resumeProducing(self):
        self.paused = False
        if self.call is None:
            self.call = reactor.callLater(self.interval, self.turn)

    def release(self):
        self.hold = None
        if not self.paused:
            self.resumeProducing()

    def stopProducing(self):
        self.pauseProducing()

    def turn(self):
        self.call = None
        if self.hold is not None and self.offset >= self.hold:
            return
        length = min(self.chunk, self.size - self.offset)
        if length > 0:
            piece = data(self.seed, self.offset, length)
            self.offset += length
            self.channel.write(piece)
        if self.offset >= self.size:
            self.channel.transport.unregisterProducer()
            self.done()
        elif not self.paused:
            self.resumeProducing()


class Channel(Protocol):
    """One subchannel. What it does with bytes is its mode: collect, sink, messages, echo, source, digest."""

    half = False

    def __init__(self, peer, id, name, options):
        self.peer, self.id, self.name, self.options = peer, id, name, options
        self.mode = options.get("mode", "collect")
        self.progress = options.get("progress", 0)
        self.gap, self.last = options.get("gap"), microseconds()
        self.received = self.sent = self.messages = 0
        self.reported = 0
        self.hash = hashlib.sha256()
        self.pump = None
        self.closing = self.gone = False
        self.read_lost = self.write_lost = False

    def connectionMade(self):
        self.peer.channels[self.id] = self
        self.emit("opened", half=self.half)
        if self.mode == "source":
            self.start_pump(self.options, then=self.options.get("then", "close"))

    def dataReceived(self, piece):
        last, self.last = self.last, microseconds()
        if self.gap is not None and self.last - last > self.gap * 1000:
            self.emit("gap", began=last, ended=self.last)
        self.received += len(piece)
        self.messages += 1
        self.hash.update(piece)
        if self.mode == "collect":
            self.emit("data", hex=piece.hex())
        elif self.mode == "messages":
            self.emit("message", length=len(piece), sha256=hashlib.sha256(piece).hexdigest())
        elif self.mode == "echo" and not self.closing:
            self.write(piece)
        self.report_progress(self.received)

    def report_progress(self, count):
        if self.progress and count - self.reported >= self.progress:
            self.reported = count - count % self.progress
            self.emit("progress", bytes=count, at=microseconds())

    def write(self, piece):
        self.sent += len(piece)
        self.transport.write(piece)
        if self.mode == "source":
            self.report_progress(self.sent)

    def start_pump(self, options, then):
        if self.pump is not None:
            raise ValueError(f"subchannel {self.id} is still sending")

        def done():
            self.pump = None
            self.emit("sent", bytes=self.sent)
            if then == "close" or self.closing:
                self.closing = False
                self.close()

        self.pump = Pump(self, options, done)

    def close(self):
        if self.closing or self.gone:
            return
        self.closing = True
        if self.pump is None:
            self.transport.loseConnection()

    def lost(self):
        self.gone = True
        if self.pump is not None:
            self.pump.stopProducing()
        self.emit("closed", **self.totals())

    def connectionLost(self, reason=None):
        self.lost()

    def totals(self):
        return {
            "bytes": self.received,
            "messages": self.messages,
            "sha256": self.hash.hexdigest(),
            "sent": self.sent,
        }

    def emit(self, event, **fields):
        self.peer.emit(event, id=self.id, name=self.name, local=self.options["local"], **fields)


@implementer(IHalfCloseableProtocol)
class HalfCloseableChannel(Channel):
    half = True

    def close(self):
        if self.closing or self.gone:
            return
        self.closing = True
        if self.pump is None:
            self.transport.loseWriteConnection()

    def readConnectionLost(self):
        self.read_lost = True
        self.emit("read-closed", **self.totals())
        if self.mode == "digest":
            self.write(self.hash.digest())
        if self.mode in ("digest", "echo"):
            self.close()
        self.both_lost()

    def writeConnectionLost(self):
        self.write_lost = True
        self.emit("write-closed")
        self.both_lost()

    def both_lost(self):
        # The subchannel tells each half, and for a half-closeable protocol never the whole.
        if self.read_lost and self.write_lost and not self.gone:
            self.lost()


class ChannelFactory(Factory):
    def __init__(self, peer, name, options, ids):
        self.peer, self.name, self.options, self.ids = peer, name, options, ids

    def buildProtocol(self, addr):
        kind = HalfCloseableChannel if self.options.get("half") else Channel
        return kind(self.peer, next(self.ids), self.name, self.options)


class Peer(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 64 * 1024 * 1024

    def __init__(self, args):
        self.args = args
        self.channels = {}
        self.accepted = 0
        self.wormhole = self.dilated = self.manager = None
        self.links = 0
        self.start = reactor.seconds()
        self.mailbox = None

    # Events

    def emit(self, event, **fields):
        line = json.dumps({"event": event, **fields}) + "\n"
        if self.transport is not None:
            self.transport.write(line.encode())

    def milliseconds(self):
        return int((reactor.seconds() - self.start) * 1000)

    def status_changed(self, status):
        connected = isinstance(status.mailbox_connection, MailboxConnected)
        if connected != self.mailbox:
            self.mailbox = connected
            self.emit("mailbox", connected=connected, at=microseconds())

    def error(self, failure, command=None):
        self.emit("error", kind=failure.type.__name__, message=failure.getErrorMessage(), command=command)

    def log(self, event):
        serious = event.get("log_level", LogLevel.info) >= LogLevel.error
        if self.args.verbose or serious:
            print(formatEvent(event), file=sys.stderr, flush=True)
        # The packages use the older interface, which leaves the failure under its own name.
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            self.emit("log", kind=failure.type.__name__, message=failure.getErrorMessage())
        elif serious:
            self.emit("log", kind=None, message=formatEvent(event))

    # Commands

    def connectionMade(self):
        args = self.args
        self.wormhole = wormhole.create(
            args.appid,
            args.mailbox,
            reactor,
            versions=json.loads(args.versions),
            dilation=True,
            stderr=sys.stderr,
            on_status_update=self.status_changed,
        )
        w = self.wormhole
        self.watch(w.get_welcome(), "welcome", lambda welcome: {"welcome": welcome})
        self.watch(w.get_code(), "code", lambda code: {"code": code})
        self.watch(w.get_verifier(), "verifier", lambda verifier: {"hex": verifier.hex()})
        self.watch(w.get_versions(), "versions", lambda versions: {"versions": versions})
        self.next_message()
        self.emit("ready")

    def connectionLost(self, reason=None):
        if reactor.running:
            reactor.stop()

    def lineReceived(self, line):
        command = None
        try:
            command = json.loads(line)
            handler = getattr(self, "do_" + command["cmd"].replace("-", "_"))
            result = handler(command)
        except Exception as e:
            self.emit("error", kind=type(e).__name__, message=str(e), command=command)
            return
        if isinstance(result, Deferred):
            result.addErrback(self.error, command)

    def watch(self, deferred, event, fields):
        # A failure here always repeats the one of "wormhole-closed" or "wormhole-failed".
        deferred.addCallbacks(lambda value: self.emit(event, **fields(value)), lambda _: None)

    def next_message(self):
        def got(message):
            self.emit("message-received", hex=message.hex())
            self.next_message()

        def failed(failure):
            self.emit("wormhole-failed", kind=failure.type.__name__, message=failure.getErrorMessage())

        self.wormhole.get_message().addCallbacks(got, failed)

    def do_allocate_code(self, command):
        self.wormhole.allocate_code(command.get("words", 2))

    def do_set_code(self, command):
        self.wormhole.set_code(command["code"])

    def do_send_message(self, command):
        self.wormhole.send_message(bytes.fromhex(command["hex"]))

    def do_derive_key(self, command):
        key = self.wormhole.derive_key(command["purpose"], command["length"])
        self.emit("derived", purpose=command["purpose"], hex=key.hex())

    def do_dilate(self, command):
        side = {"leader": "f" * 16, "follower": "0" * 16}.get(self.args.role)
        if side is not None:
            dilation_manager.make_side = lambda: side
        self.dilated = self.wormhole.dilate(
            transit_relay_location=None if self.args.relay == "none" else self.args.relay,
            no_listen=self.args.no_listen,
            ping_interval=self.args.ping_interval,
        )
        self.manager = self.dilated._manager
        made, lost = self.manager.connector_connection_made, self.manager.connector_connection_lost

        def connection_made(connection):
            self.links += 1
            self.emit(
                "connected",
                link=self.links,
                role=self.role(),
                path=connection._description,
                ms=self.milliseconds(),
                at=microseconds(),
            )
            made(connection)

        def connection_lost():
            self.emit("lost", link=self.links, ms=self.milliseconds(), at=microseconds())
            lost()

        self.manager.connector_connection_made = connection_made
        self.manager.connector_connection_lost = connection_lost
        for options in command.get("listen", []):
            self.do_listen(options)
        d = self.dilated.when_dilated()
        d.addCallback(lambda _: self.emit("dilated", role=self.role(), side=self.manager._my_side))
        return d

    def do_listen(self, options):
        def accepted_ids():
            while True:
                self.accepted += 1
                yield f"in-{self.accepted}"

        options = {**options, "local": False}
        factory = ChannelFactory(self, options["name"], options, accepted_ids())
        d = self.dilated.listener_for(options["name"]).listen(factory)
        return d.addCallback(lambda _: self.emit("listening", name=options["name"]))

    def do_open(self, command):
        # Opened one after another, in order: with `count`, the ids are ID.0, ID.1, … and the seeds SEED, SEED+1, …
        count = command.get("count")
        for number in range(1 if count is None else count):
            id = command["id"] if count is None else f"{command['id']}.{number}"
            options = {**command, "local": True, "seed": command.get("seed", 0) + number}
            factory = ChannelFactory(self, command["name"], options, iter([id]))
            d = self.dilated.connector_for(command["name"]).connect(factory)
            d.addErrback(self.error, command)

    def do_send(self, command):
        channel = self.channels[command["id"]]
        if "hex" in command:
            channel.write(bytes.fromhex(command["hex"]))
        elif "sizes" in command:
            for number, size in enumerate(command["sizes"]):
                channel.write(data(command.get("seed", 0) + number, 0, size))
        else:
            channel.start_pump(command, then="keep")

    def do_release(self, command):
        pump = self.channels[command["id"]].pump
        if pump is not None:
            pump.release()

    def do_close(self, command):
        self.channels[command["id"]].close()

    def do_stats(self, command):
        channel = self.channels[command["id"]]
        channel.emit("stats", closed=channel.gone, **channel.totals())

    def link(self):
        connection = self.manager and self.manager._connection
        if not connection:
            raise ValueError("there is no link")
        return connection

    def do_cut_link(self, command):
        transport = self.link().transport
        if command.get("abort", True):
            transport.abortConnection()
        else:
            transport.loseConnection()

    def do_pause_link(self, command):
        self.link().transport.pauseProducing()

    def do_resume_link(self, command):
        self.link().transport.resumeProducing()

    def do_send_dilate(self, command):
        self.manager.send_dilation_generation(**command["message"])

    def do_ping(self, command):
        def pong(seconds):
            self.emit("pong", seconds=seconds)

        self.manager.send_ping(os.urandom(4), pong)

    def role(self):
        if self.manager is None or self.manager._my_role is None:
            return None
        return "leader" if self.manager._my_role is LEADER else "follower"

    def do_status(self, command):
        connection = self.manager and self.manager._connection
        outbound = self.manager and self.manager._outbound
        self.emit(
            "status",
            role=self.role(),
            side=self.manager and self.manager._my_side,
            links=self.links,
            path=connection._description if connection else None,
            peer=type(self.manager._latest_status.peer_connection).__name__ if self.manager else None,
            unacknowledged=len(outbound._outbound_queue) if outbound else 0,
            subchannels=len(self.manager._inbound._open_subchannels) if self.manager else 0,
        )

    def do_wormhole_close(self, command):
        def closed(result):
            self.emit("wormhole-closed", result=str(result))

        def failed(failure):
            self.emit("wormhole-closed", result=failure.type.__name__, message=failure.getErrorMessage())

        d = self.wormhole.close()
        self.emit("wormhole-closing")
        d.addCallbacks(closed, failed)

    def do_exit(self, command):
        self.transport.loseConnection()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mailbox", required=True, help="URL of the mailbox server, ws://host:port/v1")
    parser.add_argument("--relay", default="none", help="tcp:host:port of a transit relay, or none")
    parser.add_argument("--appid", default="dilated.test/interop")
    parser.add_argument("--role", choices=["leader", "follower", "any"], default="any")
    parser.add_argument("--no-listen", action="store_true")
    parser.add_argument("--ping-interval", type=float, default=30.0)
    parser.add_argument("--versions", default="{}", help="our app_versions, as JSON")
    parser.add_argument("--verbose", action="store_true", help="all of Twisted's log on standard error")
    args = parser.parse_args()

    peer = Peer(args)
    globalLogBeginner.beginLoggingTo([peer.log], redirectStandardIO=False)
    reactor.callWhenRunning(stdio.StandardIO, peer, stdout=EVENTS)
    reactor.run()


if __name__ == "__main__":
    main()
