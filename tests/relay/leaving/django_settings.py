ALLOWED_HOSTS = ["*"]
SECRET_KEY = "of no use"
ROOT_URLCONF = "django_app"
INSTALLED_APPS = ["django_eventstream"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
USE_TZ = True
