"""From a bag to a call: features, fusion, the cells behind it, and the gates before it."""
