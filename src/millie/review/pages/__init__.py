"""What a person sees: the views, each guarded by :func:`millie.review.roles.requires`."""
