#!/usr/bin/env python3
"""A reading centre that gateways call: a TLS server on Python's own ssl, nothing of ours.

 centre.py CERTIFICATE KEY CLIENT_CA|- WORDS

Prints "ready PORT". To each caller it prints what it says first (a line), asks with WORDS, prints the answer of as many bytes and
hangs up; with WORDS "wait" it says nothing and waits until the caller hangs up.
"""
import socket
import ssl
import sys

certificate, key, client_ca, words = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
if client_ca != "-":
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
server = socket.create_server(("127.0.0.1", 0))
print("ready", server.getsockname()[1], flush=True)
while True:
    plain, _ = server.accept()
    try:
        with context.wrap_socket(plain, server_side=True) as caller:
            line = b""
            while not line.endswith(b"\n"):
                byte = caller.recv(1)
                if not byte:
                    break
                line += byte
            print("called", line, caller.version(), flush=True)
            if words == "wait":
                while caller.recv(100):
                    pass
            else:
                caller.sendall(words.encode())
                answer = b""
                while len(answer) < len(words):
                    piece = caller.recv(100)
                    if not piece:
                        break
                    answer += piece
                print("answered", answer, flush=True)
        print("over", flush=True)
    except OSError as problem:
        print("failed", problem, flush=True)
