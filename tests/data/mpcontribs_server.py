"""A small MPContribs: the requests that mpcontribs-client makes of the real one, on the loopback.

The specification names the operations, parameters and limits of the real server as the client uses
them (version 5.10); the answers have the real layout.
"""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORTS = (5000, 5002, 5003, 5005, 10000, 10002, 10003, 10005, 20000, 20005)
"""The client talks to no other ports of this machine."""
KEY = "k" * 32


def _operation(resource, name, path="", *more):
    paging = [
        {"name": "page", "in": "query", "type": "integer"},
        {
            "name": "per_page", "in": "query", "type": "integer", "default": 100, "maximum": 500,
        },
        {"name": "_sort", "in": "query", "type": "string"},
    ]  # fmt: skip
    fields = {"name": "_fields", "in": "query", "type": "array", "items": {"type": "string"}}
    return {
        f"/{resource}/{path}": {
            "get": {
                "operationId": name,
                "tags": [resource],
                "parameters": [fields, *paging, *more],
                "responses": {"200": {"description": "ok", "schema": {"type": "object"}}},
            }
        }
    }


def _query(name, kind="string"):
    return {"name": name, "in": "query", "type": kind}


def _listed(name):
    return {**_query(name, "array"), "items": {"type": "string"}}


_PK = {"name": "pk", "in": "path", "type": "string", "required": True}
_FORMAT = {"name": "short_mime", "in": "path", "type": "string", "required": True}
_ONE = (_listed("id__in"), _query("format"))
SPEC = {
    "swagger": "2.0",
    "info": {"title": "MPContribs API", "version": "5.10"},
    "basePath": "/",
    "paths": {
        **_operation("projects", "queryProjects", "", _query("name")),
        **_operation("projects", "getProjectByName", "{pk}/", _PK),
        **_operation(
            "contributions", "queryContributions", "", _query("project"), *_ONE,
            _query("^data__((?!__).)*$__exact"), _listed("^data__((?!__).)*$__in"),
        ),
        **_operation(
            "contributions", "downloadContributions", "download/{short_mime}/", *_ONE, _FORMAT
        ),
        **_operation("structures", "queryStructures", "", *_ONE),
        **_operation("structures", "downloadStructures", "download/{short_mime}/", *_ONE, _FORMAT),
    },
    "definitions": {
        f"{name}Schema": {"type": "object", "properties": {key: {} for key in keys.split()}}
        for name, keys in {
            "Contributions": "id project identifier formula data structures",
            "Structures": "id name md5 lattice sites charge",
            "Projects": "name columns unique_identifiers",
        }.items()
    },
}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Serves one project of ``contributions`` whose structures stand in ``structures`` by id."""

    daemon_threads = True
    project = "amorphous_diffusivity"

    def __init__(self, contributions, structures):
        self.contributions, self.structures = contributions, structures
        self.asked, self.fail_after = [], None
        for port in PORTS:
            try:
                super().__init__(("127.0.0.1", port), Handler)
                break
            except OSError:
                continue
        else:
            raise OSError("every port that the client talks to is taken")
        self.host = f"localhost:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        options = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.server.asked.append((url.path, options))
        if url.path in ("/apispec.json", "/healthcheck"):
            self.answer(SPEC if "spec" in url.path else {"version": "5.10"})
        elif self.headers.get("x-api-key") != KEY:
            self.answer({"error": "no key"}, 401)
        elif url.path.startswith("/projects/"):
            found = {
                "name": self.server.project,
                "unique_identifiers": True,
                "columns": [
                    {"path": "data.chemsys", "unit": "NaN"},
                    {"path": "data.temperature", "unit": "K"},
                ],
            }
            one = url.path != "/projects/"
            self.answer(found if one else {"data": [found], "total_count": 1, "total_pages": 1})
        else:
            self.entries(url.path, options)

    def entries(self, path, options):
        resource = path.split("/")[1]
        held = getattr(self.server, resource)
        if "id__in" in options:
            held = [entry for entry in held if entry["id"] in options["id__in"].split(",")]
        if "data__chemsys__in" in options:
            wanted = options["data__chemsys__in"].split(",")
            held = [entry for entry in held if entry["data"]["chemsys"] in wanted]
        size, page = int(options.get("per_page", 100)), int(options.get("page", 1))
        chosen = held[(page - 1) * size : page * size]
        if "/download/" in path:
            done = sum("/download/" in asked for asked, _ in self.server.asked)
            if self.server.fail_after is not None and done > self.server.fail_after:
                self.answer({"error": "down for maintenance"}, 500)
                return
            self.send(gzip.compress(json.dumps(chosen).encode()), "application/gzip")
            return
        fields = [name for name in options.get("_fields", "").split(",") if name]
        data = [{name: entry[name] for name in fields if name in entry} for entry in chosen]
        count = len(held)
        pages = -(-count // size)
        self.answer({"data": data, "total_count": count, "total_pages": pages, "has_more": False})

    def answer(self, content, status=200):
        self.send(json.dumps(content).encode(), "application/json", status)

    def send(self, body, kind, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
