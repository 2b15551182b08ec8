"""Work that takes longer than a request: the queue, the worker, and what it brings back."""
