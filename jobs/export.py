"""Write a trained generator for programs that know nothing of this one: TorchScript, safetensors and a loader.

Example: python jobs/export.py run=NAME
"""

from facefactory.command import main

if __name__ == "__main__":
    main("export", stages=("export",))
