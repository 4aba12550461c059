"""Pack a face set into shards.

Example: python jobs/pack_shards.py pack.recipe=folder pack.root=/path/to/faces pack.resolution=64 pack.color=rgb
"""

from facefactory.command import main

if __name__ == "__main__":
    main("pack_shards", stages=("pack",), preset="orl32")
