import tempfile
from pathlib import Path

from django.http import HttpResponse
from django.test import RequestFactory, SimpleTestCase, override_settings

from chat.static import StaticFilesMiddleware


class RollingDeployTests(SimpleTestCase):
    """A process still serves while the files of newer code are collected beside its own."""

    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.root / "old.css").write_text("old")
        self.enterContext(
            override_settings(
                STATIC_ROOT=self.root, WHITENOISE_AUTOREFRESH=False, WHITENOISE_USE_FINDERS=False
            )
        )
        self.middleware = StaticFilesMiddleware(lambda request: HttpResponse(status=404))

    def get(self, path: str) -> HttpResponse:
        return self.middleware(RequestFactory().get(path))

    def test_files_of_newer_code_are_found(self):
        self.assertEqual(self.get("/static/new.css").status_code, 404)
        (self.root / "new.css").write_text("new")
        self.assertEqual(self.get("/static/new.css").content, b"new")
        self.assertEqual(self.get("/static/new.css")["Content-Type"], 'text/css; charset="utf-8"')
        self.assertEqual(self.get("/static/old.css").content, b"old")

    def test_nothing_else_is(self):
        (self.root / "folder").mkdir()
        (self.root.parent / "secret.txt").touch()
        self.addCleanup((self.root.parent / "secret.txt").unlink)
        for path in (
            "/static/",
            "/static/folder",
            "/static/folder/",
            "/static/../secret.txt",
            "/secret.txt",
        ):
            self.assertEqual(self.get(path).status_code, 404, path)
