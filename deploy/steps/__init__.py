"""The steps of a run: each applies itself, and takes itself back."""
