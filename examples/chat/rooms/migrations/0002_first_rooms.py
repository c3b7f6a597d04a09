from django.db import migrations

ROOMS = {"lobby": "Lobby", "pictures": "Pictures", "deploys": "Deploys"}


def add_rooms(apps, schema_editor):
    for slug, name in ROOMS.items():
        apps.get_model("rooms", "Room").objects.get_or_create(slug=slug, defaults={"name": name})


class Migration(migrations.Migration):
    dependencies = [("rooms", "0001_initial")]

    operations = [migrations.RunPython(add_rooms, migrations.RunPython.noop)]
