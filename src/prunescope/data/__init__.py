"""Images as uint8, decoded once: where they come from, how they are split, batched and augmented."""
