"""Scores of whole codes [N, D] against factors [N, F], from arrays alone; a file is a metric.

A file has

    SCORES                   name -> "higher" or "lower", which way is better
    score(codes, factors)    -> name -> value

A column of factors holds class numbers, or numbers as they are; NaN = missing. A column is of classes if it has few values
(`_factors.MOST_CLASSES`). ValueError: too few faces, dimensions or factors.
"""
