"""Numbers in, numbers out: figures of merit, intervals, calibration. Knows no files."""
