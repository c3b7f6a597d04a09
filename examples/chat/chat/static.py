"""Static files by WhiteNoise, so that they load under any ASGI server, with no nginx beside it."""

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise, made to fit a rolling deploy and ASGI.

    WhiteNoise lists the files when the process starts. During a rolling deploy a page of the new
    code may ask an old process for its style sheet, so a file that is not on the list is looked for
    once more.
    """

    def __init__(self, get_response):
        super().__init__(get_response)
        if not self.autorefresh:
            self.directories.append((f"{settings.STATIC_ROOT}/", self.static_prefix))

    def __call__(self, request: HttpRequest):
        url = request.path_info
        if url.startswith(self.static_prefix) and url not in self.files and not self.autorefresh:
            file = self.find_file(url)
            if file is not None:
                self.files[url] = file
        return super().__call__(request)

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        # Django would read WhiteNoise's synchronous stream in one go anyway, and warn of it.
        stream: FileResponse = WhiteNoiseMiddleware.serve(static_file, request)
        response = HttpResponse(
            b"".join(stream.streaming_content), status=stream.status_code, headers=stream.headers
        )
        stream.close()
        return response
