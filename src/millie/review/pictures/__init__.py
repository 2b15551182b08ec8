"""Pictures for the browser: crops of cells, and tiles of fields and slides."""
