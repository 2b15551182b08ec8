"""Several prediction runs beside each other: how the calls develop over time."""
