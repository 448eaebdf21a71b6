"""Images as vectors whose dot products say how alike they look, by something that is not the network in question."""
