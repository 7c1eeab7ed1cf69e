"""The container's own health check: ends 0 when /health answers 200, and tells why it does not."""

import http.client
import os
import sys


def main() -> int:
    """Ask once."""
    link = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT", "8000")), timeout=4)
    link.request("GET", "/health")
    return int(link.getresponse().status != http.HTTPStatus.OK)


if __name__ == "__main__":
    sys.exit(main())
