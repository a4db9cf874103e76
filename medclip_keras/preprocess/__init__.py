"""Images and text in the graph, shared by Beam jobs, training and serving."""
