"""``python -m shop.fill``: make the database, with its tables and something to sell."""

import os

import django
from django.core.management import call_command

ARTICLES = 1000

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    django.setup()
    from shop.models import Article

    call_command("migrate", run_syncdb=True, verbosity=0)
    Article.objects.bulk_create(
        Article(name=f"Article {number}", price=number / 100, stock=number * 7919 % ARTICLES)
        for number in range(ARTICLES)
    )
