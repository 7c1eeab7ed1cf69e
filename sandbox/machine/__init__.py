"""What this machine has, what it lacks, and how it gets it."""
