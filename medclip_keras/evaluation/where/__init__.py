"""Where a model looked: heat maps of images, the pointing game and overlap with boxes."""
