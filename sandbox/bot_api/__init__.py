"""A local server that speaks the part of the Bot API that is used here, errors included.

It behaves as https://core.telegram.org/bots/api says, in the words of the real one; like that one
run with `--local` it takes an http address for a webhook. It needs nothing but the standard
library, so that `python -m sandbox.bot_api` also runs in a bare container.
"""

from sandbox.bot_api.server import served
from sandbox.bot_api.state import MASTER, TOKEN, BotApi, Trouble

__all__ = ["MASTER", "TOKEN", "BotApi", "Trouble", "served"]
