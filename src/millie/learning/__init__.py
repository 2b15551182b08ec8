"""Training, splits by patient, cross-validation with intervals, and confound controls."""
