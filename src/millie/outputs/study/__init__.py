"""Pages, figures and tables of a cross-validation."""
