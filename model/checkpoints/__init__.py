"""Weights in and out: archives, published key names (one file per system), restoring, fine-tuning, exporting."""
