"""Two sets of feature vectors compared, one family of scores a file.

A file has

    STATISTICS   what is kept of a set: "sample" (features [N, D], in the order of the images), "moments" (`Moments`) or
                 "logits" (class scores [N, K])
    SCORES       name of a score -> "lower" or "higher", whichever is better; a name says what it is, the features that it
                 was computed on are added by who asks (kd -> kd_lite0)
    score(real, fake) -> name -> value, of two such statistics; it raises ValueError for sets that are too small, with how
                 many images are needed

The docstring names paper and equation, the estimate's bias, and what the score is known to be blind to.
"""
