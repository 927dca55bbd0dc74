"""A small Google Cloud Storage stand-in (JSON API, in memory, one process), for tests only.

    python gcs_server.py [--port 0] [--bucket NAME ...]     prints `http://127.0.0.1:PORT` as its first line

Serves what gcsfs, google-cloud-storage, tensorstore's `gcs` and curl use: upload (media, multipart, resumable), download
with ranges, metadata, list (prefix, delimiter, startOffset, endOffset, maxResults, pageToken), delete, copyTo, rewriteTo, moveTo, buckets;
generations and if[Source][Meta]GenerationMatch / NotMatch. `GET /_log` returns the requests so far, `?clear=1` empties.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LOCK = threading.RLock()
BUCKETS: dict[str, dict[str, dict]] = {}  # bucket -> name -> {data, generation, ...}
UPLOADS: dict[str, dict] = {}
LOG: list[str] = []
PAGE = 1000
_gen = [0]


def next_generation() -> int:
    _gen[0] = max(_gen[0] + 1, time.time_ns() // 1000)
    return _gen[0]


class Error(Exception):
    def __init__(self, code: int, message: str, reason: str = "invalid"):
        self.code, self.message, self.reason = code, message, reason


def crc32c(data: bytes) -> str:
    try:
        import google_crc32c

        return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
    except ImportError:
        return ""


def resource(bucket: str, name: str, o: dict) -> dict:
    g = str(o["generation"])
    return {
        "kind": "storage#object", "id": f"{bucket}/{name}/{g}", "name": name, "bucket": bucket, "generation": g,
        "metageneration": "1", "size": str(len(o["data"])), "contentType": o["type"], "timeCreated": o["time"],
        "updated": o["time"], "storageClass": "STANDARD", "md5Hash": o["md5"], "crc32c": o["crc32c"], "etag": g,
        "metadata": o.get("metadata", {}),
    }  # fmt: skip


def find(bucket: str, name: str) -> dict | None:
    if bucket not in BUCKETS:
        raise Error(404, "The specified bucket does not exist.", "notFound")
    return BUCKETS[bucket].get(name)


def check(q: dict, o: dict | None, source: bool = False, read: bool = False) -> None:
    p = "ifSource" if source else "if"
    g = o["generation"] if o else 0
    want, unwanted = q.get(f"{p}GenerationMatch"), q.get(f"{p}GenerationNotMatch")
    if want is not None and int(want) != g:
        raise Error(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
    if unwanted is not None and int(unwanted) == g and (o or not read):
        raise Error(304 if read else 412, "notModified", "conditionNotMet")
    pinned = q.get("sourceGeneration" if source else "generation")
    if pinned is not None and o is not None and int(pinned) != g:
        raise Error(404, "No such object generation", "notFound")


def put(bucket: str, name: str, data: bytes, ctype: str, q: dict, metadata: dict | None = None) -> dict:
    md5, crc = base64.b64encode(hashlib.md5(data).digest()).decode(), crc32c(data)
    with LOCK:  # test and set in one: what makes create-if-absent exclusive
        check(q, find(bucket, name))
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() % 1 * 1000):03d}Z"
        o = {"data": data, "generation": next_generation(), "type": ctype or "application/octet-stream", "time": now,
             "md5": md5, "crc32c": crc, "metadata": metadata or {}}  # fmt: skip
        BUCKETS[bucket][name] = o
        return resource(bucket, name, o)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            out = b""
            while n := int(self.rfile.readline().split(b";")[0], 16):
                out += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, code: int, body=b"", ctype: str = "application/json; charset=UTF-8", **headers) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(code)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), str(v))
        if code not in (204, 304):
            self.send_header("Content-Type", ctype)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and code not in (204, 304):
            self.wfile.write(body)
        self.wfile.flush()

    def handle_any(self) -> None:
        data = self.body()  # always read, or the next request on this connection is misread
        url = urlsplit(self.path)
        q = {k: v[-1] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        LOG.append(f"{self.command} {self.path} {self.headers.get('Range') or ''}")
        try:
            self.route(url.path, q, data)
        except Error as e:
            LOG[-1] += f" -> {e.code}"
            err = {
                "code": e.code,
                "message": e.message,
                "errors": [{"message": e.message, "reason": e.reason, "domain": "global"}],
            }
            self.reply(e.code, {"error": err})

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_any

    def route(self, path: str, q: dict, data: bytes) -> None:
        if path == "/_log":
            out = "\n".join(LOG)
            if q.get("clear"):
                LOG.clear()
            return self.reply(200, out.encode(), "text/plain")
        if self.command == "POST" and path.startswith("/batch"):
            return self.batch(data)
        if m := re.fullmatch(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o", path):
            return self.upload(unquote(m[1]), q, data)
        p = re.sub(r"^/(download/)?storage/v1", "", path)
        if p == "/b":
            if self.command == "POST":
                name = json.loads(data)["name"]
                if name in BUCKETS:
                    raise Error(409, "You already own this bucket.", "conflict")
                BUCKETS[name] = {}
                return self.reply(200, self.bucket(name))
            return self.reply(200, {"kind": "storage#buckets", "items": [self.bucket(b) for b in sorted(BUCKETS)]})
        if m := re.fullmatch(r"/b/([^/]+)(/storageLayout|/iam/testPermissions)?", p):
            b = unquote(m[1])
            find(b, "")
            if os.environ.get("GCS_DENY_BUCKET_GET") and self.command == "GET":  # as for roles/storage.objectAdmin
                raise Error(
                    403, "does not have storage.buckets.get access to the Google Cloud Storage bucket.", "forbidden"
                )
            if self.command == "DELETE":
                if BUCKETS[b]:
                    raise Error(409, "The bucket you tried to delete is not empty.", "conflict")
                del BUCKETS[b]
                return self.reply(204)
            return self.reply(200, self.bucket(b))
        if m := re.fullmatch(r"/b/([^/]+)/o", p):
            return self.list(unquote(m[1]), q)
        if m := re.fullmatch(r"/b/([^/]+)/o/([^/]+)/(copyTo|rewriteTo|moveTo)(?:/b/([^/]+))?/o/([^/]+)", p):
            return self.copy(*(unquote(x) if x else None for x in m.groups()), q)
        if m := re.fullmatch(r"/b/([^/]+)/o/(.+)", p):
            return self.object(unquote(m[1]), unquote(m[2]), q, data)
        raise Error(404, f"Not Found: {self.command} {path}", "notFound")

    @staticmethod
    def bucket(name: str) -> dict:
        return {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "storageClass": "STANDARD",
                "locationType": "multi-region", "metageneration": "1", "timeCreated": "2026-01-01T00:00:00.000Z",
                "updated": "2026-01-01T00:00:00.000Z"}  # fmt: skip

    def object(self, b: str, name: str, q: dict, data: bytes) -> None:
        with LOCK:
            o = find(b, name)
            check(q, o, read=self.command in ("GET", "HEAD"))
            if o is None:
                raise Error(404, f"No such object: {b}/{name}", "notFound")
            if self.command == "DELETE":
                del BUCKETS[b][name]
                return self.reply(204)
            if self.command == "PATCH":
                o["metadata"].update(json.loads(data).get("metadata") or {})
        if q.get("alt") != "media":
            return self.reply(200, resource(b, name, o))
        body, n = o["data"], len(o["data"])
        head = {"x_goog_generation": o["generation"], "x_goog_metageneration": 1, "x_goog_stored_content_length": n,
                "x_goog_hash": f"crc32c={o['crc32c']},md5={o['md5']}", "x_goog_stored_content_encoding": "identity"}  # fmt: skip
        r = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not r:
            return self.reply(200, body, o["type"], **head)
        lo = int(r[1]) if r[1] else max(0, n - int(r[2]))
        hi = min(n, int(r[2]) + 1) if r[1] and r[2] else n
        if lo >= n or lo >= hi:
            return self.reply(416, b"range", "text/plain", Content_Range=f"bytes */{n}", **head)
        self.reply(206, body[lo:hi], o["type"], Content_Range=f"bytes {lo}-{hi - 1}/{n}", **head)

    def upload(self, b: str, q: dict, data: bytes) -> None:
        if uid := q.get("upload_id"):
            return self.resume(uid, data)
        find(b, "")
        kind = q.get("uploadType")
        ctype = self.headers.get("Content-Type") or ""
        if kind == "media":
            return self.reply(200, put(b, q["name"], data, ctype, q))
        if kind == "multipart":
            mark = b"--" + re.search(r'boundary="?([^";]+)"?', ctype)[1].encode()
            _, meta, rest = data.split(mark, 2)  # the content may hold anything, so cut at the LAST mark
            content = rest[: rest.rindex(mark)]
            split = re.compile(rb"\r?\n\r?\n")
            meta = json.loads(split.split(meta, maxsplit=1)[1])
            head, content = split.split(content, maxsplit=1)
            content = content[:-2] if content.endswith(b"\r\n") and b"\r\n" in head else content[:-1]
            t = re.search(rb"(?i)content-type: *([^\r\n]+)", head)
            name = q.get("name") or meta["name"]
            return self.reply(200, put(b, name, content, t[1].decode() if t else "", q, meta.get("metadata")))
        if kind == "resumable":
            meta = json.loads(data) if data else {}
            with LOCK:
                name = q.get("name") or meta["name"]
                check(q, find(b, name))  # as the service does: checked at the start, and again at the end
                uid = f"u{next_generation()}"
                UPLOADS[uid] = {"b": b, "name": name, "q": q, "data": bytearray(), "meta": meta.get("metadata"),
                                "type": self.headers.get("X-Upload-Content-Type") or ""}  # fmt: skip
            where = f"http://{self.headers['Host']}/upload/storage/v1/b/{quote(b)}/o?uploadType=resumable&name={quote(name)}&upload_id={uid}"
            return self.reply(200, b"", Location=where)
        raise Error(400, f"uploadType {kind!r}")

    def resume(self, uid: str, data: bytes) -> None:
        u = UPLOADS.get(uid)
        if u is None:
            raise Error(404, "no such upload", "notFound")
        if self.command == "DELETE":
            del UPLOADS[uid]
            return self.reply(499)
        r = self.headers.get("Content-Range")
        m = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", r) if r else None
        if m and m[1] is not None:
            u["data"][int(m[1]) :] = data
        elif not m:
            u["data"][:] = data
        total = m[3] if m else str(len(u["data"]))
        if total != "*" and int(total) == len(u["data"]):
            del UPLOADS[uid]
            return self.reply(200, put(u["b"], u["name"], bytes(u["data"]), u["type"], u["q"], u["meta"]))
        self.reply(308, b"", **({"Range": f"bytes=0-{len(u['data']) - 1}"} if u["data"] else {}))

    def list(self, b: str, q: dict) -> None:
        prefix, delim, n = q.get("prefix", ""), q.get("delimiter", ""), int(q.get("maxResults") or PAGE)
        after = base64.urlsafe_b64decode(q["pageToken"]).decode() if q.get("pageToken") else None
        items, prefixes, last, token = [], [], None, None
        with LOCK:
            find(b, "")
            for name in sorted(BUCKETS[b], key=lambda s: s.encode()):
                if (
                    not name.startswith(prefix)
                    or name < q.get("startOffset", "")
                    or (q.get("endOffset") and name >= q["endOffset"])
                ):
                    continue
                cut = name.find(delim, len(prefix)) if delim else -1
                entry = name[: cut + len(delim)] if cut >= 0 else name
                if (after is not None and entry <= after) or entry == last:
                    continue
                if len(items) + len(prefixes) >= n:
                    token = base64.urlsafe_b64encode(last.encode()).decode()
                    break
                last = entry
                if cut >= 0:
                    prefixes.append(entry)
                    if q.get("includeTrailingDelimiter") != "true" or name != entry:
                        continue
                items.append(resource(b, name, BUCKETS[b][name]))
        out = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        self.reply(200, {k: v for k, v in out.items() if v} | ({"nextPageToken": token} if token else {}))

    def copy(self, b: str, name: str, how: str, b2: str | None, name2: str, q: dict) -> None:
        b2 = b2 or b
        with LOCK:
            o = find(b, name)
            if o is None:
                raise Error(404, f"No such object: {b}/{name}", "notFound")
            check(q, o, source=True)
            new = put(
                b2, name2, o["data"], o["type"], {k: v for k, v in q.items() if k.startswith("if")}, dict(o["metadata"])
            )
            if how == "moveTo" and (b, name) != (b2, name2):
                del BUCKETS[b][name]
        if how != "rewriteTo":
            return self.reply(200, new)
        n = str(len(o["data"]))
        self.reply(
            200,
            {
                "kind": "storage#rewriteResponse",
                "done": True,
                "objectSize": n,
                "totalBytesRewritten": n,
                "resource": new,
            },
        )

    def batch(self, data: bytes) -> None:  # deletes only
        out, mark = [], "batch_x"
        for m in re.finditer(rb"DELETE (?:https?://[^/]+)?/storage/v1/b/([^/ ]+)/o/([^ ?]+)", data):
            with LOCK:
                gone = find(unquote(m[1].decode()), name := unquote(m[2].decode()))
                BUCKETS[unquote(m[1].decode())].pop(name, None)
            status = "204 No Content" if gone else "404 Not Found"
            out.append(
                f"--{mark}\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n"
            )
        self.reply(200, ("".join(out) + f"--{mark}--\r\n").encode(), f"multipart/mixed; boundary={mark}")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):  # a client that hangs up is no error
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--bucket", action="append", default=[])
    args = ap.parse_args()
    for b in args.bucket:
        BUCKETS[b] = {}
    server = Server(("127.0.0.1", args.port), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
