"""What a box is made of: its image, its container, its keys and its address."""
