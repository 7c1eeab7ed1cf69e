"""What a deployment needs of a machine: one place for each question, whoever asks it.

Preflight asks what it cannot do without, `doctor` everything, and `setup` what it may have to do.
"""
