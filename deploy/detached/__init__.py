"""The part of a run that a host does by itself, so that no link and no laptop can stop it halfway.

`launch` is our side: it brings the library and the plan to the host, starts the work and follows
it. `work` is the host's: standard library only, since nothing is installed there.
"""
