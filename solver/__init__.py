"""The optimiser, its parameter groups by role, and the learning-rate schedule."""
