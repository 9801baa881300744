"""Mannequins, a data set that is drawn: who the people are, figures and places, photos, captions, and the files."""
