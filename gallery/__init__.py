"""Search in a folder of photos: its index, the ranking, and what shows the results."""
