"""The bag store: one file a patient with every cell's picture, place and provenance."""
