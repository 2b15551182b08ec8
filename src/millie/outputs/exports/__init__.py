"""Results in the formats of others: QuPath, DICOM, FHIR, feature files. One module a format."""
