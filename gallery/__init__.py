"""Search in a folder of photos: the index on disk, ranking, queries, result files and the search page.

``open`` makes a searcher from flags; ``search.py`` does the rest.
"""
