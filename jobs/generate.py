"""Draw images from a trained run, as PNG files or as shards.

Example: python jobs/generate.py run=NAME generate.images=1000 generate.out=faces
"""

from facefactory.command import main

if __name__ == "__main__":
    main("generate", stages=("generate",))
