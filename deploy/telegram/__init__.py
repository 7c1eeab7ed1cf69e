"""The pipeline's side of Telegram: it tells the Master how a run ended, and asks for his word."""

from deploy.telegram import api
from deploy.telegram.api import read
from deploy.telegram.notify import Delivery, send, shortened

__all__ = ["Delivery", "api", "read", "send", "shortened"]
