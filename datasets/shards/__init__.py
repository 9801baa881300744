"""Millions of person images with captions, in tar files that are read at random: import, check, index."""
