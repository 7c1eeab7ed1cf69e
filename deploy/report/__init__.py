"""The record of a run, and the texts that are made of it."""
