"""Where images come from. A source is a file with `images(root, name) -> {name: path}`, in a fixed order."""
