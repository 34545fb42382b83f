#!/usr/bin/env python3
"""Events by webhook: how many a second, and what they leave of the pace at which mail is accepted.

    benches/feedback.py [--bin target/release/postroad] [--events 100000] [--rate 2000] [--seconds 10]

Mail is handed in and kept by a sandbox; then the ESP of that name is a SendGrid, whose events, signed, come in batches.
Needs openssl. Prints one line of JSON: events a second alone; messages accepted a second alone, and while events come at
`--rate`, in turns of `--seconds`; what is left of the pace; CPU a thousand events.
"""

import argparse
import base64
import json
import multiprocessing
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
BATCH = 100
CONNECTIONS = 40
BODY = ("From: a@example.org\r\nTo: b@example.com\r\nSubject: x\r\n\r\n" + ("." + "y" * 70 + "\r\n") * 56 + ".\r\n").encode()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fail(why):
    """From any thread."""
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


def text(number):
    out = []
    for _ in range(13):
        out.append(ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(out))


class Relay:
    def __init__(self, binary, folder, esp):
        self.binary, self.folder = binary, folder
        self.smtp, self.http = free_port(), free_port()
        self.config = os.path.join(folder, "postroad.toml")
        with open(self.config, "w") as f:
            f.write(f'[server]\nhostname = "relay.invalid"\ndata_dir = "{folder}/data"\n'
                    f'[[listener]]\naddress = "127.0.0.1:{self.smtp}"\n[http]\naddress = "127.0.0.1:{self.http}"\n{esp}')
        log = open(os.path.join(folder, "log"), "ab")
        self.process = subprocess.Popen([binary, "serve", "--config", self.config], stderr=log, stdout=log)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.smtp), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("the relay does not start; see " + folder)

    def cli(self, *arguments):
        subprocess.run([self.binary, "--config", self.config, *arguments], check=True, stdout=subprocess.DEVNULL)

    def cpu(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def submit(port, stop, done, count, rcpt):
    """One connection, one message after the other."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        f = s.makefile("rb")

        def reply():
            while True:
                line = f.readline()
                if line[3:4] != b"-":
                    return line
        reply()
        s.sendall(b"EHLO bench\r\n")
        reply()
        while not stop():
            s.sendall(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<" + rcpt().encode() + b">\r\nDATA\r\n")
            replies = [reply() for _ in range(3)]
            if replies[2][:3] != b"354":
                fail(f"refused: {replies}")
            s.sendall(BODY)
            if (last := reply())[:3] != b"250":
                fail(f"not taken: {last}")
            done[count] += 1


def accept(port, stop, rcpt):
    done = [0] * CONNECTIONS
    threads = [threading.Thread(target=submit, args=(port, lambda: stop(sum(done)), done, n, rcpt)) for n in range(CONNECTIONS)]
    began = time.monotonic()
    [t.start() for t in threads]
    [t.join() for t in threads]
    return sum(done) / (time.monotonic() - began)


class Hook:
    """POSTs signed in advance: what is measured is the relay."""

    def __init__(self, folder, port, deliveries, events):
        self.port, self.posts = port, []
        key = os.path.join(folder, "key.pem")
        run = lambda *a, **k: subprocess.run(a, check=True, capture_output=True, **k).stdout
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        self.key = base64.b64encode(run("openssl", "ec", "-in", key, "-pubout", "-outform", "DER")).decode()
        kinds = ["processed", "delivered", "open", "click", "deferred", "delivered"]
        now = int(time.time())
        for first in range(0, events, BATCH):
            batch = []
            for n in range(first, min(first + BATCH, events)):
                message, attempt, to, remote = deliveries[n % len(deliveries)]
                batch.append({"email": to, "timestamp": now, "event": kinds[n % len(kinds)], "sg_event_id": f"e{random.random()}{n}",
                              "sg_message_id": f"{remote}.recvd-0", "postroad_attempt": f"{text(message)}-{text(attempt)}",
                              "smtp-id": "<x@example.org>", "useragent": "Mozilla/5.0 (X11; Linux x86_64)", "response": "250 2.0.0 OK"})
            body, stamp = json.dumps(batch).encode(), str(int(time.time())).encode()
            signature = base64.b64encode(run("openssl", "dgst", "-sha256", "-sign", key, input=stamp + body)).decode()
            self.posts.append((f"POST /webhooks/grid HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               f"X-Twilio-Email-Event-Webhook-Signature: {signature}\r\n"
                               f"X-Twilio-Email-Event-Webhook-Timestamp: {stamp.decode()}\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n").encode() + body)

    def send(self, rate=None, stop=lambda: False, connections=4):
        lock, sent = threading.Lock(), [0]
        began = time.monotonic()

        def worker():
            s = socket.create_connection(("127.0.0.1", self.port))
            f = s.makefile("rb")
            while True:
                with lock:
                    if stop() or not self.posts:
                        return
                    post = self.posts.pop()
                    turn = sent[0]
                    sent[0] += 1
                if rate:
                    time.sleep(max(0, began + turn * BATCH / rate - time.monotonic()))
                s.sendall(post)
                status = f.readline()
                length = 0
                while (line := f.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                answer = f.read(length)
                if b" 200 " not in status:
                    fail(f"{status} {answer}")
                told = json.loads(answer)
                if told["unmatched"] or told["taken"] != BATCH:
                    fail(f"not all were joined: {told}")
        threads = [threading.Thread(target=worker) for _ in range(connections)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return sent[0] * BATCH / (time.monotonic() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release/postroad")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        measure(asked, os.path.abspath(asked.bin), folder)


def measure(asked, binary, folder):
    relay = Relay(binary, folder, '[[esp]]\nname = "grid"\ntype = "sandbox"\n')
    accept(relay.smtp, lambda done: done >= 20_000, lambda: f"r{random.randrange(5000)}@d{random.randrange(50)}.example")
    time.sleep(2)
    relay.stop()
    with sqlite3.connect(f"{folder}/data/postroad.db") as db:
        rows = db.execute("SELECT a.message, a.attempt, d.address, coalesce(a.remote_id, '') FROM attempts a JOIN email_sends d "
                          "USING (message, recipient) WHERE a.outcome = 'accepted'").fetchall()
    rounds = int(asked.rate * asked.seconds * asked.turns * 1.5)
    hook = Hook(folder, 0, rows, asked.events + rounds)
    esp = ('[[esp]]\nname = "grid"\ntype = "sendgrid"\napi_key = "SG.x"\nendpoint = "http://127.0.0.1:9"\nsmtp_endpoint = "smtp://127.0.0.1:9"\n'
           f'webhook_public_key = "{hook.key}"\n[limits]\nqueue_bytes = "100GB"\n')
    relay = Relay(binary, folder, esp)
    relay.cli("pause", "--reason", "bench")
    hook.port = relay.http
    spare, hook.posts = hook.posts[: rounds // BATCH], hook.posts[rounds // BATCH:]
    before = relay.cpu()
    alone = hook.send()
    cpu = relay.cpu() - before
    hook.posts = spare
    paces = {True: [], False: []}
    for _ in range(asked.turns):
        for beside in (False, True):
            until = time.monotonic() + asked.seconds
            over = lambda: time.monotonic() >= until
            # A process of its own: it takes nothing from the clients but the machine's time.
            events = multiprocessing.get_context("fork").Process(target=hook.send, args=(asked.rate, over))
            if beside:
                events.start()
            paces[beside].append(accept(relay.smtp, lambda _: over(), lambda: f"r{random.randrange(5000)}@x.example"))
            if beside:
                events.join()
                if events.exitcode:
                    fail("events were not taken")
                hook.posts = hook.posts[: -int(asked.rate * asked.seconds / BATCH * 1.1)]
    middle = lambda all: sorted(all)[len(all) // 2]
    print(json.dumps({"events_per_s": round(alone), "cpu_ms_per_1000_events": round(cpu * 1e6 / asked.events, 1),
                      "accepted_per_s_alone": round(middle(paces[False])), "accepted_per_s_beside": round(middle(paces[True])),
                      "beside_events_per_s": asked.rate, "kept": round(middle(paces[True]) / middle(paces[False]), 3)}))
    relay.stop()


if __name__ == "__main__":
    main()
