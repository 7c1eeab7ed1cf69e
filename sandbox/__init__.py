"""The VPS in a box and the stand-in images; standard library only, `bootstrap` runs on it."""
