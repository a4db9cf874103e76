"""What training and serving share, in the graph: images and text."""
