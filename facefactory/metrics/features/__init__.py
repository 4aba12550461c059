"""Sets of feature vectors compared, one family of scores a file; `_….py` are shared tools.

A file has

    STATISTICS   what is kept of a set: "sample" (features [N, D], in the order of the images),
                 "moments" (`Moments`) or "logits" (class scores [N, K])
    SCORES       name of a score -> "lower" or "higher", whichever is better; a name says what it
                 is, the features are added by who asks (kd -> kd_lite0)
    score(real, fake) -> name -> value, of two such statistics; it raises ValueError for sets that
                 are too small, with how many images are needed

and may have

    THREE = True  score(train, held_out, fake) instead: is what was drawn nearer to the training
                 set than strangers are? `train` is what the model was trained on, nothing else
    DRAWS = True  it takes random subsets or directions with a seed of its own: the same images in
                 another order are another draw; without it, the order does not matter
    UNBIASED     names of scores whose expectation does not depend on how many images there are:
                 these may stand on a scale with marks from few images
    BY_CLASS = True  it is asked for every class of the set's labels, too
    COPIES       name of a score -> limit beyond which (on its worse side) it speaks for copies of
                 training images, where other photographs of the same people lie on the other side
    interval(real, fake) -> name -> (low, high), of 95 %, where one costs no resampling

The docstring names paper and equation, the estimate's bias, whether swapping the sets changes it
("Symmetric" or not), and what the score is known to be blind to.
"""
