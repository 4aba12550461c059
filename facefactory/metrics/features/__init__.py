"""Two sets of feature vectors compared: `score(real [N, D], fake [M, D])` -> a distance, or (precision, recall)."""
