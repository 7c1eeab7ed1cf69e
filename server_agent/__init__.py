"""Server Agent vNext: looks after a server and talks to its Master on Telegram."""
