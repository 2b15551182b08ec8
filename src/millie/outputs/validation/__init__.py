"""A laboratory's own validation: a plan with criteria, what was found, the verdict."""
