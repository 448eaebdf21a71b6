"""One page about the filters of a network: which matter, for which class, and what each sees."""
