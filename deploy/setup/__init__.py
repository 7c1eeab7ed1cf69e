"""A bare Debian or Ubuntu machine, made ready: looked at part by part, and changed where it lacks.

Each part asks the host what is true before it acts, so that a set-up which was killed goes on
where it stood, and one that is done has nothing to do. `parts` lists them, `verb` walks the list.
"""
