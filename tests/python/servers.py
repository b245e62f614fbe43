"""The Python mailbox server or transit relay on a port of 127.0.0.1, as a child of a test.

    servers.py mailbox [--port N] [--database FILE] [--motd TEXT]
    servers.py relay   [--port N]

Prints one JSON line, {"event": "listening", "port": N}, on standard output, and ends when its standard
input does, so that no server outlives the test that started it. Logs go to standard error.
"""

import argparse
import json
import os
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["mailbox", "relay"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--database", default=":memory:")
    parser.add_argument("--motd")
    args = parser.parse_args()

    # Whatever the packages print must not mix with the one line we promise.
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from twisted.internet import endpoints, protocol, reactor, stdio
    from twisted.python import log

    log.startLogging(sys.stderr, setStdout=False)

    if args.kind == "mailbox":
        from wormhole_mailbox_server.database import create_or_upgrade_channel_db
        from wormhole_mailbox_server.server import make_server
        from wormhole_mailbox_server.web import make_web_server

        service = make_server(create_or_upgrade_channel_db(args.database), welcome_motd=args.motd)
        service.startService()
        factory = make_web_server(service, log_requests=False)
    else:
        from wormhole_transit_relay import transit_server
        from wormhole_transit_relay.usage import create_usage_tracker

        usage = create_usage_tracker(blur_usage=None, log_file=None, usage_db=None)
        factory = protocol.ServerFactory()
        factory.protocol = transit_server.TransitConnection
        factory.log_requests = False
        factory.transit = transit_server.Transit(usage, reactor.seconds)

    class UntilEndOfInput(protocol.Protocol):
        def connectionLost(self, reason=protocol.connectionDone):
            if reactor.running:
                reactor.stop()

    def listening(port):
        print(json.dumps({"event": "listening", "port": port.getHost().port}), file=report, flush=True)

    def failed(failure):
        print(json.dumps({"event": "error", "message": failure.getErrorMessage()}), file=report, flush=True)
        reactor.stop()

    def start():
        stdio.StandardIO(UntilEndOfInput())
        endpoint = endpoints.serverFromString(reactor, f"tcp:{args.port}:interface=127.0.0.1")
        endpoint.listen(factory).addCallbacks(listening, failed)

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main()
