"""Distances between two sets of feature vectors: `score(real [N, D], fake [M, D]) -> float or dict`, float64 arrays."""
