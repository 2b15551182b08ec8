"""Who does the work: the seam that every engine fills, and the engines behind it."""
