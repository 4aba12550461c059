"""Packed sets: what they are on disk, and how their images and labels are read."""
