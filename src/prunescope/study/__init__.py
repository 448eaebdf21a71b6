"""A study: a config becomes a plan of cells, cells become artifacts in a store, records become drift."""
