"""Search in a folder of photos: the index on disk (``index``), ranking, queries, result files and the search page.

``session`` opens a folder with the model of a run; ``search.py`` does the rest.
"""
