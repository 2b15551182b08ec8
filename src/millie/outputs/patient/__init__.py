"""Pages of a prediction run: the worklist and a page for each patient."""
