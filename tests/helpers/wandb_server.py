"""As much of a wandb server as a run needs that begins, logs, stops and continues; a stand-in on loopback.

GET /ID: the rows that a run has. DELETE /ID/N: forget all but the first N.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROWS: dict[str, list[str]] = {}


def answer(query: str, given: dict) -> dict:
    name, project = given.get("name"), {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "me"}}
    if "query RunResumeStatus" in query:
        rows = ROWS.get(name)  # wandbConfig's t, of telemetry, is in every run that began
        bucket = {"id": name, "name": name, "displayName": name, "config": "{}", "wandbConfig": '{"t": 1}', "tags": [],
                  "summaryMetrics": "{}", "eventsTail": "[]", "eventsLineCount": 0, "logLineCount": 0}  # fmt: skip
        bucket |= {"historyLineCount": len(rows or []), "historyTail": json.dumps((rows or [])[-1:])}
        return {"model": {**project, "bucket": None if rows is None else bucket}}
    if "mutation UpsertBucket" in query:
        new = name not in ROWS
        bucket = {"id": name, "name": name, "displayName": name, "historyLineCount": len(ROWS.setdefault(name, []))}
        return {"upsertBucket": {"bucket": bucket | {"project": project}, "inserted": new}}
    if "mutation CreateRunFiles" in query:
        files = [{"name": file, "uploadUrl": given["address"]} for file in given["files"]]
        return {"createRunFiles": {"runID": name, "uploadHeaders": [], "files": files}}
    return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/graphql":
            asked = json.loads(body)
            address = f"http://{self.headers['Host']}/upload"
            return self.reply({"data": answer(asked["query"], (asked.get("variables") or {}) | {"address": address})})
        if self.path.endswith("/file_stream"):
            new = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if new:
                rows = ROWS[self.path.split("/")[-2]]
                rows[new["offset"] :] = new["content"]
        self.reply({})

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.reply({})

    def do_GET(self):
        self.reply([json.loads(row) for row in ROWS[self.path[1:]]])

    def do_DELETE(self):
        name, keep = self.path[1:].split("/")
        del ROWS[name][int(keep) :]
        self.reply({})

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # clients that hang up
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
