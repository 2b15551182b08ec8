"""What people decide about single cells: saved, counted, and hidden where it must be."""
