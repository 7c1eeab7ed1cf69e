"""A backup each day that the host takes by itself, whether anybody is connected or not.

`install` is our side: it brings the library and a plan to the host, and has systemd or cron
start it. `work` is the host's: standard library only, since nothing is installed there.
"""
