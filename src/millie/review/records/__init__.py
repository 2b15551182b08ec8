"""What is kept for good: the audit trail, signatures, second reviews, escalations."""
