"""One page."""

from django.urls import path

from shop.views import articles

urlpatterns = [path("", articles)]
