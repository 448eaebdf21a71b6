"""Running networks: one guarded pass over data for all probes, training, gradients."""
