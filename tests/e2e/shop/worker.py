"""Waits for its end."""

import signal

signal.sigwait({signal.SIGTERM})
