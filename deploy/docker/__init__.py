"""Docker, Compose and the proxy: pure builders of commands and pure parsers of answers."""
