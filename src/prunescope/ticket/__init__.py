"""One network at a time, without a study: prune it, keep the ticket, make it smaller, and load it again."""
