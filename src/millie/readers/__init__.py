"""Readers: image files, manifests, patient folders and published data sets become a Cohort."""
