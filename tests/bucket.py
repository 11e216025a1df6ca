"""A bucket in memory that both roads to gs:// see: fsspec's, and tensorstore's HTTP."""

import collections
import contextlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

ADDRESS = "TENSORSTORE_GCS_HTTP_URL"  # tensorstore's, for such a server


class Bucket(MemoryFileSystem):
  """What epath calls for gs://; a folder is there as long as something is in it."""

  protocol = ("gs", "gcs")
  store: ClassVar[dict] = {}
  pseudo_dirs: ClassVar[list] = [""]
  cachable = False

  def __init__(self, finalize_on_close: bool = True, **options):
    super().__init__(**options)

  @classmethod
  def _strip_protocol(cls, path):
    return "/" + path.removeprefix("gs://").removeprefix("gcs://").strip("/")

  def _open(self, path, mode="rb", **options):
    if mode not in ("rb", "wb"):
      raise NotImplementedError(f"objects cannot be opened with {mode!r}")
    return super()._open(path, mode, **options)

  def mkdir(self, path, create_parents=True, **options):
    pass

  def makedirs(self, path, exist_ok=False):
    pass


class Handler(BaseHTTPRequestHandler):
  """The few calls of the JSON API that tensorstore makes."""

  protocol_version = "HTTP/1.1"
  generations: ClassVar[dict] = collections.Counter()  # of an object written here
  lock = threading.Lock()

  def log_message(self, *args):
    pass

  def _asked(self):
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    parts = url.path.split("/b/", 1)[1].split("/o", 1)
    bucket, name = parts[0], urllib.parse.unquote(parts[1].lstrip("/"))
    return bucket, name, query

  def _send(self, status, body=b"", headers=()):
    self.send_response(status)
    for key, value in headers:
      self.send_header(key, value)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def _json(self, value):
    self._send(200, json.dumps(value).encode(), [("Content-Type", "application/json")])

  def _generation(self, key) -> int:
    return self.generations[key] + 1 if key in Bucket.store else 0

  def _described(self, bucket, key):
    return {
      "name": key.removeprefix(f"/{bucket}/"),
      "bucket": bucket,
      "generation": str(self._generation(key)),
      "size": str(len(Bucket.store[key].getvalue())),
      "timeCreated": "2024-01-01T00:00:00Z",
      "updated": "2024-01-01T00:00:00Z",
    }

  def do_GET(self):
    bucket, name, query = self._asked()
    if not name:
      prefix = f"/{bucket}/{query.get('prefix', '')}"
      keys = sorted(key for key in Bucket.store if key.startswith(prefix))
      self._json({"items": [self._described(bucket, key) for key in keys]})
      return
    key = f"/{bucket}/{name}"
    if key not in Bucket.store:
      self._send(404)
      return
    whole = Bucket.store[key].getvalue()
    headers = [("x-goog-generation", str(self._generation(key)))]
    span = self.headers.get("Range")
    if span is None:
      self._send(200, whole, headers)
      return
    first, _, last = span.removeprefix("bytes=").partition("-")
    start = int(first) if first else len(whole) - int(last)
    end = int(last) + 1 if first and last else len(whole)
    part = whole[start:end]
    content = f"bytes {start}-{start + len(part) - 1}/{len(whole)}"
    self._send(206, part, [*headers, ("Content-Range", content)])

  def do_POST(self):
    bucket, _, query = self._asked()
    body = self.rfile.read(int(self.headers["Content-Length"]))
    key = f"/{bucket}/{query['name']}"
    wanted = query.get("ifGenerationMatch")
    with self.lock:
      if wanted is not None and int(wanted) != self._generation(key):
        self._send(412)
        return
      self.generations[key] += 1
      Bucket().pipe_file(key, body)
    self._json(self._described(bucket, key))

  def do_DELETE(self):
    bucket, name, _ = self._asked()
    found = Bucket.store.pop(f"/{bucket}/{name}", None)
    self._send(204 if found else 404)


@contextlib.contextmanager
def served(patch) -> Iterator[str]:
  """gs:// is this process's memory while the block runs; gives a folder there.

  Args:
    patch: pytest's MonkeyPatch.
  """
  Bucket.store.clear()
  Bucket.clear_instance_cache()
  server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  patch.setenv(ADDRESS, f"http://127.0.0.1:{server.server_port}")
  patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
  for name in Bucket.protocol:
    fsspec.register_implementation(name, Bucket, clobber=True)
  try:
    yield "gs://bucket/folder"
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
