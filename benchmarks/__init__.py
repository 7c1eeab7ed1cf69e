"""Speed, as ratios and differences measured in one run; nothing here is a test."""
