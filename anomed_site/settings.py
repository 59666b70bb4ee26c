"""The one settings file. Everything has an embedded default; the environment (or var/env) overrides it.

With no configuration at all the server runs from one folder: SQLite, files, cache and mail under `var/`.
"""

import os
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django_stubs_ext
import environ
import structlog
from csp.constants import NONE, SELF
from django.core.management.utils import get_random_secret_key
from django.utils.translation import gettext_lazy as _

django_stubs_ext.monkeypatch()  # lets ModelAdmin[Submission] and its like stand in class definitions

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("ANOMED_VAR", BASE_DIR / "var")).resolve()
PRIVATE_ROOT = VAR / "private"  # patient data, uploads, images, runs: below no served path
for folder in (VAR, PRIVATE_ROOT):
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)

env = environ.Env()
if (VAR / "env").is_file():
    env.read_env(str(VAR / "env"))


def _remembered(name: str, make: Any) -> str:
    """A value that is made once and then kept in var/, readable by this user only."""
    path = VAR / name
    if not path.exists():
        temporary = VAR / f".{name}.{uuid.uuid4().hex}"
        temporary.touch(mode=0o600)
        temporary.write_text(make())
        try:
            os.link(temporary, path)  # the first of several processes wins, none sees half a file
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text().strip()


# -- the site
DEBUG = env.bool("ANOMED_DEBUG", default=False)
SECRET_KEY = env.str("ANOMED_SECRET_KEY", default="") or _remembered("secret_key", get_random_secret_key)
INSTALLATION = _remembered("installation", lambda: uuid.uuid4().hex)  # labels what is ours on a container engine
SITE_URL = env.str("ANOMED_SITE_URL", default="http://localhost:8000").rstrip("/")
SITE_NAME = "AnoMed Arena"
_site = urlsplit(SITE_URL)
_local_names = ["localhost", "127.0.0.1", "[::1]"] if _site.hostname in {"localhost", "127.0.0.1", "::1"} else []
ALLOWED_HOSTS = env.list("ANOMED_ALLOWED_HOSTS", default=[_site.hostname or "localhost", *_local_names])
CSRF_TRUSTED_ORIGINS = [SITE_URL]

INSTALLED_APPS = [
    "anomed_site.apps.AnomedSiteConfig",
    "submissions.apps.SubmissionsConfig",
    "challenges.apps.ChallengesConfig",
    "sandbox.apps.SandboxConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "crispy_forms",
    "crispy_bootstrap5",
    "django_htmx",
    "django_q",
    "drf_spectacular",
    "drf_standardized_errors",
    "health_check",
    "knox",
    "rest_framework",
    "rules.apps.AutodiscoverRulesConfig",
    "simple_history",
]

MIDDLEWARE = [
    "anomed_site.metrics.counted",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "anomed_site.urls"
ASGI_APPLICATION = "anomed_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "anomed_site" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
                "anomed_site.pages.site_context",
            ],
        },
    },
]

# -- database, cache, mail: embedded defaults
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # a deferred transaction that turns into a write fails at once under load
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # Tests use a file too: workers and browsers of the tests are processes and threads of their own.
    DATABASES["default"]["TEST"] = {"NAME": str(VAR / f"test-{os.getpid()}.sqlite3")}
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True  # where connections are kept: the server may be restarted
    # A server that vanishes without a word would keep a worker, and the thread that holds its lease, for hours.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 10,  # seconds; those of the keepalives too
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,  # milliseconds
        **DATABASES["default"].get("OPTIONS", {}),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(VAR / "cache")}}
_mail_url = env.str("EMAIL_URL", default="")
EMAIL_TIMEOUT = 20  # seconds; a mail server that hangs must not keep anybody waiting
if _mail_url:
    vars().update(environ.Env.email_url_config(_mail_url))
else:
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = str(VAR / "mail")
DEFAULT_FROM_EMAIL = env.str("ANOMED_MAIL_FROM", default=f"AnoMed Arena <noreply@{_site.hostname or 'localhost'}>")

# -- people
AUTH_USER_MODEL = "anomed_site.User"
AUTHENTICATION_BACKENDS = [
    "rules.permissions.ObjectPermissionBackend",
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGOUT_REDIRECT_URL = "home"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_UNIQUE_EMAIL = True
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = bool(_mail_url)
# A server without a mail relay cannot ask for a confirmed address; with one, it does.
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if _mail_url else "none"
ACCOUNT_RATE_LIMITS = {"login_failed": "10/m/ip,5/5m/key", "signup": "20/m/ip"}
# How many reverse proxies stand before the site, so that the limits see people and not the proxy.
ALLAUTH_TRUSTED_PROXY_COUNT = env.int("ANOMED_PROXIES", default=0)

# -- security
_https = _site.scheme == "https"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = _https
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = _https
SECURE_HSTS_SECONDS = 31536000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
SECURE_REFERRER_POLICY = "same-origin"
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^metrics$"]  # asked from within, past the proxy
if env.int("ANOMED_PROXIES", default=0):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],  # Bootstrap's own icons are data: URLs in its style sheet
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
FILE_UPLOAD_TEMP_DIR = str(PRIVATE_ROOT / "incoming")  # also of bodies on their way in: see anomed_site/bodies.py
FILE_UPLOAD_PERMISSIONS = 0o600
Path(FILE_UPLOAD_TEMP_DIR).mkdir(mode=0o700, exist_ok=True)

# -- languages and time
LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("de", _("German"))]
LOCALE_PATHS = [BASE_DIR / "anomed_site" / "locale"]
USE_TZ = True
TIME_ZONE = env.str("ANOMED_TIME_ZONE", default="Europe/Berlin")

# -- files
STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"
STATICFILES_DIRS = [BASE_DIR / "anomed_site" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": PRIVATE_ROOT}},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# -- work
RUN_SLOTS = env.int("ANOMED_RUN_SLOTS", default=os.cpu_count() or 2)
WEB_WORKERS = 2  # a long check of a challenge must not keep the reaper waiting
CHECK_WORKERS = 2  # apart from the reaper: strangers decide how many archives there are, and how long each takes
_longest_run = 7 * 24 * 3600
Q_CLUSTER = {
    "name": "web",
    "orm": "default",
    "broker_class": "anomed_site.heartbeat.Broker",
    "workers": WEB_WORKERS,
    "timeout": 3600,
    "retry": 3700,
    "max_attempts": 1,
    "ack_failures": True,
    "poll": 0.2,
    "save_limit": 100,
    "catch_up": False,
    "daemonize_workers": False,  # hostile bytes are parsed in children of the workers
    "label": _("Background work"),
    "ALT_CLUSTERS": {
        "checks": {"workers": CHECK_WORKERS, "queue_limit": CHECK_WORKERS, "scheduler": False},
        "runs": {
            "workers": env.int("ANOMED_RUN_WORKERS", default=RUN_SLOTS + 1),  # see sandbox.worker.work
            "queue_limit": 1,
            "timeout": _longest_run,  # a run has its own limit, kept by the worker
            "retry": _longest_run + 60,
            "scheduler": False,
            "recycle": 200,
        },
    },
}

DOCKER_HOST_URL = env.str("ANOMED_DOCKER_HOST", default="unix:///var/run/docker.sock")
SANDBOX = {
    "walls": tuple(name.strip() for name in env.list("ANOMED_WALLS", default=[])),
    "gvisor_runtime": env.str("ANOMED_GVISOR_RUNTIME", default="runsc"),
    "lease_seconds": env.int("ANOMED_LEASE_SECONDS", default=30),
    "gpu_hosts": tuple(env.list("ANOMED_GPU_HOSTS", default=[])),
    "gpu_probe_image": env.str("ANOMED_GPU_PROBE_IMAGE", default=""),
    "gateway_image": env.str("ANOMED_GATEWAY_IMAGE", default=""),
    "max_image_bytes": env.int("ANOMED_MAX_IMAGE_BYTES", default=20 * 10**9),
    "max_archive_bytes": env.int("ANOMED_MAX_ARCHIVE_BYTES", default=10 * 10**9),
    "keep_logs_days": env.int("ANOMED_KEEP_LOGS_DAYS", default=90),
    "keep_results_days": env.int("ANOMED_KEEP_RESULTS_DAYS", default=7),
    "keep_images_days": env.int("ANOMED_KEEP_IMAGES_DAYS", default=90),
    "alarm_disk_low_percent": env.float("ANOMED_ALARM_DISK_LOW", default=15),
    "alarm_disk_full_percent": env.float("ANOMED_ALARM_DISK_FULL", default=5),
    "alarm_host_minutes": env.float("ANOMED_ALARM_HOST_MINUTES", default=5),
    "alarm_wait_minutes": env.float("ANOMED_ALARM_WAIT_MINUTES", default=10),
}
# For measuring what one release is worth. Honest ones take seconds, the largest that are allowed some minutes.
JUDGE = {
    "seconds": env.int("ANOMED_JUDGE_SECONDS", default=900),
    "memory_mb": env.int("ANOMED_JUDGE_MEMORY_MB", default=8192),
}
KEEP_RELEASES_DAYS = env.int("ANOMED_KEEP_RELEASES_DAYS", default=90)
KEEP_UPLOADS_DAYS = env.int("ANOMED_KEEP_UPLOADS_DAYS", default=7)
# -- `docker push`: on by itself where people work on this machine and the registry's program is installed
_push_to = "localhost:5000" if _local_names and shutil.which("docker-registry") else ""
_push_to = env.str("ANOMED_REGISTRY", default=_push_to)
REGISTRY = {
    "address": "" if _push_to == "off" else _push_to,
    "port": env.int("ANOMED_REGISTRY_PORT", default=5000),
    "max_bytes": env.int("ANOMED_REGISTRY_MAX_BYTES", default=50 * 10**9),
}
ISOLATION_PRELOAD = ["challenges.scenarios.registry", "sandbox.images"]

# -- watching: without a token there are no metrics
METRICS_TOKEN = env.str("ANOMED_METRICS_TOKEN", default="")
OPERATORS = env.list("ANOMED_OPERATORS", default=[])  # not ADMINS, whom Django mails the messages of all errors
ALARM_CHALLENGE_GB = env.int("ANOMED_ALARM_CHALLENGE_GB", default=200)

# -- API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticatedOrReadOnly"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_standardized_errors.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 50,
    "EXCEPTION_HANDLER": "drf_standardized_errors.handler.exception_handler",
    "DEFAULT_THROTTLE_RATES": {"token": "10/min"},
    "NUM_PROXIES": env.int("ANOMED_PROXIES", default=0),
}
DRF_STANDARDIZED_ERRORS = {"EXCEPTION_HANDLER_CLASS": "submissions.api.errors.ExceptionHandler"}
SPECTACULAR_SETTINGS = {
    "TITLE": "AnoMed Arena",
    "VERSION": "1",
    "DESCRIPTION": "Enter challenges, upload images, follow scores.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": [],  # enumerations stay where they are used: error codes would collide by name
}
KNOX_TOKEN_MODEL = "knox.AuthToken"  # noqa: S105 -- a model's name
REST_KNOX = {"TOKEN_TTL": None, "TOKEN_LIMIT_PER_USER": 20}

# -- looks
CRISPY_ALLOWED_TEMPLATE_PACKS = CRISPY_TEMPLATE_PACK = "bootstrap5"

# -- logs: one line of JSON each, with the run's and the submission's id where there is one
_shared_processors: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
structlog.configure(
    processors=[*_shared_processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": structlog.processors.JSONRenderer(),
            "foreign_pre_chain": _shared_processors,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": env.str("ANOMED_LOG_LEVEL", default="INFO")},
    "loggers": {
        "django.server": {"handlers": ["stderr"], "propagate": False},
        "django-q": {"level": "WARNING"},
        "uvicorn.access": {"level": "WARNING"},
    },
}
if not (VAR / "static").is_dir():
    # collectstatic has not run yet, as in tests: WhiteNoise's remark about it would be noise
    warnings.filterwarnings("ignore", message="No directory at", module="django.core.handlers")
