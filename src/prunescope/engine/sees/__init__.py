"""What every filter of a network sees: its best patches, and what in them it answers to."""
