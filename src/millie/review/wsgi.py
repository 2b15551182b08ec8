"""The application as a server of the WSGI standard (PEP 3333) calls it."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "millie.review.settings")
application = get_wsgi_application()
