"""What is measured on a checkpoint. A probe is one file: options, a gatherer, a record."""
