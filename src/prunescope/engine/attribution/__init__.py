"""Which pixels speak for a class: one interface, a method a file. Register another in `base.methods`."""
