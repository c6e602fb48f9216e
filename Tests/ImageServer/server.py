"""What the checks of the picture server share: a server to start, requests, pictures, and a count of what was checked."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("IMAGE_SERVER", str(ROOT / "Examples/ImageServer/.build/release/image-server"))

passed, failed = 0, 0


def check(condition, sentence, found=None):
    """Counts a check, and prints one that fails with what was found."""
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {sentence}" + ("" if found is None else f" (found: {str(found)[:6000]})"), flush=True)
    return condition


def finish(name):
    print(f"{name}: {passed} checks passed, {failed} failed")
    sys.exit(1 if failed else 0)


class Server:
    """A server of its own on a free port, with a state folder that a second one can take over."""

    def __init__(self, *options, state=None, key=None):
        self.folder = state or tempfile.mkdtemp(prefix="image-server-test-")
        environment = {name: value for name, value in os.environ.items() if name != "IMAGE_SERVER_KEY"}
        if key:
            environment["IMAGE_SERVER_KEY"] = key
        self.key = key
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [PROGRAM, "--port", "0", "--state", self.folder, *options], stdout=subprocess.PIPE, stderr=self.log, env=environment
        )
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline().decode() if ready else ""
        if not line.startswith("The page: http://"):
            self.process.kill()
            raise SystemExit(f"The server did not start: {line}{self.errors()}")
        self.port = int(line.strip().rstrip("/").rsplit(":", 1)[1])

    def errors(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def connection(self, timeout=300):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=300):
        """The status, the headers and the body, which is JSON if it says so."""
        headers = dict(headers or {})
        if self.key and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.key}"
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        with contextlib.closing(self.connection(timeout)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.getheader("Content-Type") or ""
            return answer.status, answer.headers, json.loads(data) if kind.startswith("application/json") else data

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body, **more):
        return self.request("POST", path, body, **more)

    def events(self, method, path, body=None, limit=300):
        """Events of a stream as they come: name and JSON."""
        connection = self.connection(limit)
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError((answer.status, answer.read()))
        name = None
        try:
            for line in answer:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    yield name, json.loads(line[6:])
        finally:
            connection.close()

    def wait(self, job, states=("done", "failed", "cancelled"), seconds=120):
        """A job once it is in one of some states."""
        end = time.time() + seconds
        while time.time() < end:
            status, _, found = self.get(f"/api/jobs/{job}")
            if status != 200 or found["state"] in states:
                return found
            if found["state"] in ("done", "failed", "cancelled"):
                break
            time.sleep(0.05)
        raise SystemExit(f"The job {job} is not {' or '.join(states)}: {found}")

    def memory(self):
        """Resident bytes."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096

    def alive(self):
        return self.process.poll() is None

    def stop(self, how=signal.SIGTERM, seconds=60):
        """The exit status."""
        if self.alive():
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "still running"


def png(width, height, pixels, channels=3):
    """A PNG file of rows of bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = width * channels
    lines = b"".join(b"\0" + pixels[y * row : (y + 1) * row] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def pixels(data):
    """Width, height and the bytes red, green, blue of a PNG file without interlacing."""
    place, idat, width, height, kind = 8, b"", 0, 0, 0
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG"
    while place < len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        if name == b"IHDR":
            width, height, _, kind = struct.unpack(">IIBB", body[:10])
        if name == b"IDAT":
            idat += body
        place += length + 12
    channels = {0: 1, 2: 3, 6: 4}[kind]
    raw, row, before, result = zlib.decompress(idat), width * channels, bytearray(width * channels), bytearray()
    for y in range(height):
        start = y * (row + 1)
        method, line = raw[start], bytearray(raw[start + 1 : start + 1 + row])
        for x in range(row):
            left = line[x - channels] if x >= channels else 0
            up, corner = before[x], before[x - channels] if x >= channels else 0
            if method == 1:
                line[x] = (line[x] + left) & 255
            elif method == 2:
                line[x] = (line[x] + up) & 255
            elif method == 3:
                line[x] = (line[x] + (left + up) // 2) & 255
            elif method == 4:
                guess = left + up - corner
                nearest = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
                line[x] = (line[x] + nearest) & 255
        result += line
        before = line
    if channels == 3:
        return width, height, bytes(result)
    return width, height, b"".join(bytes(result[i : i + 3]) if channels == 4 else bytes([result[i]] * 3) for i in range(0, len(result), channels))


def form(fields, files):
    """A multipart form: its Content-Type and its bytes."""
    mark = "a-boundary-of-this-test"
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    for name, data in files:
        parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\nContent-Type: image/png\r\n\r\n'.encode() + data + b"\r\n")
    return f"multipart/form-data; boundary={mark}", b"".join(parts) + f"--{mark}--\r\n".encode()


def b64(data):
    return base64.b64encode(data).decode()
