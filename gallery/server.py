"""The server behind the search page: how many clients it serves at once, and which it sends away."""

import logging
import resource
import sys

import waitress
from flask import Flask

from gallery.options import HOST, MOST_UPLOADED
from utils import UserError
from utils.log import NEXT

log = logging.getLogger("descry")

_THREADS = 256
"""requests that are answered at once; most of them wait for their turn to decode a photo, so that queries need not"""
_CONNECTIONS = 1000
_IDLE_SECONDS = 20
"""after which a client that neither sends nor reads is disconnected"""
_SWITCH_SECONDS = 0.0005
"""how long a thread may keep the interpreter; an encoder asks for it at every operation, and waits behind the others"""


def create_server(app: Flask, port: int) -> waitress.server.BaseWSGIServer:
    """A server that is listening and has yet to be run. Raises UserError where the port is taken."""
    try:
        return waitress.create_server(
            app,
            host=HOST,
            port=port,
            max_request_body_size=MOST_UPLOADED,  # refused by what it says about itself, before it is read
            threads=_THREADS,
            connection_limit=_connections(),
            asyncore_use_poll=True,  # select cannot watch more than 1024 files
            channel_timeout=_IDLE_SECONDS,
            cleanup_interval=_IDLE_SECONDS // 4,
        )
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; choose another, or 0 for any that is free") from None


def serve(app: Flask, port: int) -> None:
    """Serve until Ctrl-C. Raises UserError where the port is taken."""
    server = create_server(app, port)
    sys.setswitchinterval(_SWITCH_SECONDS)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line for every request that has to wait
    log.info("search page: http://%s:%s/ (Ctrl-C to stop)", HOST, server.effective_port, extra=NEXT)
    server.run()


def _connections() -> int:
    """How many may be open at once; each is a file, of which a process may only have so many."""
    return max(16, min(_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64))
