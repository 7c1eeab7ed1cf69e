"""Where commands run: over SSH or on this machine."""

from deploy.host.files import append, create, read, replace, rights
from deploy.host.local import local_host
from deploy.host.process import SSH_PORT, Host, Process, Result, transfer

__all__ = [
    "SSH_PORT",
    "Host",
    "Process",
    "Result",
    "append",
    "create",
    "local_host",
    "read",
    "replace",
    "rights",
    "transfer",
]
