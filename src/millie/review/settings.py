"""Django's settings, made from environment variables that ``millie serve`` sets.

``MILLIE_REVIEW_DATA`` is the folder of all data, ``MILLIE_REVIEW_DATABASE`` a PostgreSQL URL
(empty: SQLite inside the folder), ``MILLIE_REVIEW_HOSTS`` further host names that may be asked for,
with a comma between. ``MILLIE_REVIEW_HTTPS`` set to ``1`` says that browsers come by TLS.
``MILLIE_REVIEW_BUNDLE`` is the model that is asked where none is named.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF

from millie.models.bundle_folder import DEFAULT_MODEL
from millie.review.data_folder import DataFolder, database_settings

DATA = DataFolder(Path(os.environ["MILLIE_REVIEW_DATA"]))
BUNDLE = os.environ.get("MILLIE_REVIEW_BUNDLE") or DEFAULT_MODEL
HTTPS = os.environ.get("MILLIE_REVIEW_HTTPS") == "1"

SECRET_KEY = DATA.secret_key()
DEBUG = False
ALLOWED_HOSTS = [
    "localhost", "127.0.0.1", "[::1]",
    *filter(None, os.environ.get("MILLIE_REVIEW_HOSTS", "").split(",")),
]  # fmt: skip
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "csp",
    "millie.review.apps.ReviewConfig",
]
MIDDLEWARE = [
    "millie.review.serving.requests.Requests",
    "millie.review.problems.ApiProblems",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "millie.review.urls"
WSGI_APPLICATION = "millie.review.wsgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "millie.review.pages.context.every_page",
            ],
            "builtins": ["millie.review.templatetags.review"],
        },
    }
]
DATABASES = {"default": database_settings(os.environ.get("MILLIE_REVIEW_DATABASE", ""), DATA)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
_VALIDATION = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": f"{_VALIDATION}.UserAttributeSimilarityValidator"},
    {"NAME": f"{_VALIDATION}.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": f"{_VALIDATION}.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "worklist"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_AGE = 8 * 3600  # one shift
SESSION_COOKIE_SAMESITE = "Strict"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
CSRF_USE_SESSIONS = True
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # they tell passwords
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 365 * 86400 if HTTPS else 0
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
FILE_UPLOAD_TEMP_DIR = str(DATA.incoming)
FILE_UPLOAD_MAX_MEMORY_SIZE = 2**20
DATA_UPLOAD_MAX_MEMORY_SIZE = 2**20
DATA_UPLOAD_MAX_NUMBER_FILES = 2000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 6000
LOGGING_CONFIG = None
