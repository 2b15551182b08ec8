"""What a laboratory's systems call: submit, poll, fetch, list; OpenAPI by django-ninja."""
