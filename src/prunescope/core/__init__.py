"""Words shared by every layer: values, masks, names, seeds and safe files."""
