"""The page: an ordinary view, which Django runs in a thread."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from site_version import BODY

from shop.models import Article

SHOWN = 20


def articles(request: HttpRequest) -> HttpResponse:
    shown = Article.objects.filter(stock__gt=0).order_by("stock", "name")[:SHOWN]
    return render(request, "shop/articles.html", {"articles": shown, "release": BODY.decode()})
