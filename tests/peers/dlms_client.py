#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
# A process of its own for tests, on a library under the GPL; no part of weir is made from it.
"""Minimal independent DLMS client on PyPI gurux-dlms. Reads over TCP or a tty.
 dlms_client.py --tcp 127.0.0.1:4163 --wrapper --sap 16 [--auth HIGH_GMAC --cipher --pw Gurux] [--list --range --entry]
 dlms_client.py --tty /run/ttyC --sap 17 --auth LOW --pw Gurux
"""
import argparse, datetime, os, select, socket, sys, termios, time, tty
from gurux_dlms.secure import GXDLMSSecureClient
from gurux_dlms import GXReplyData, GXByteBuffer
from gurux_dlms.enums import InterfaceType, Authentication, Security, ObjectType, RequestTypes
from gurux_dlms.objects import GXDLMSRegister, GXDLMSClock, GXDLMSProfileGeneric, GXDLMSData
ap = argparse.ArgumentParser()
ap.add_argument("--tcp"); ap.add_argument("--tty"); ap.add_argument("--wrapper", action="store_true")
ap.add_argument("--sap", type=int, default=16); ap.add_argument("--auth", default="NONE"); ap.add_argument("--pw", default="")
ap.add_argument("--cipher", action="store_true"); ap.add_argument("--ic", type=int, default=1)
ap.add_argument("--reg", default="1.0.1.8.0.255"); ap.add_argument("--pg", default="1.0.99.1.0.255")
ap.add_argument("--list", action="store_true"); ap.add_argument("--range"); ap.add_argument("--entry")
ap.add_argument("--baud", type=int, default=9600); ap.add_argument("-v", action="store_true")
a = ap.parse_args()
if a.tcp:
    h, p = a.tcp.split(":"); s = socket.create_connection((h, int(p)), 5); fd = s.fileno()
    send = s.sendall; recv = lambda: s.recv(4096)
else:
    fd = os.open(a.tty, os.O_RDWR | os.O_NOCTTY); tty.setraw(fd)
    at = termios.tcgetattr(fd); at[4] = at[5] = getattr(termios, f"B{a.baud}"); termios.tcsetattr(fd, termios.TCSANOW, at)
    send = lambda b: os.write(fd, b); recv = lambda: os.read(fd, 4096)
c = GXDLMSSecureClient(True, a.sap, 1, Authentication[a.auth], a.pw,
                       InterfaceType.WRAPPER if a.wrapper else InterfaceType.HDLC)
c.ciphering.systemTitle = b"CLI\x00\x00\x00\x00\x02"
if a.cipher: c.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
c.ciphering.invocationCounter = a.ic
def xfer(frame, reply):
    if not frame: return
    buf = GXByteBuffer(); notify = GXReplyData(); reply.error = 0
    if a.v: print("TX", bytes(frame).hex(" "))
    send(bytes(frame)); end = time.time() + 5
    while True:
        if not select.select([fd], [], [], max(0, end - time.time()))[0]: raise TimeoutError
        d = recv()
        if not d: raise EOFError
        if a.v: print("RX", d.hex(" "))
        buf.set(d)
        if c.getData(buf, reply, notify): break
    if reply.error: raise RuntimeError(f"error {reply.error}")
def block(frames, reply):
    if not isinstance(frames, list): frames = [frames]
    for f in frames:
        reply.clear(); xfer(f, reply)
        while reply.isMoreData():
            xfer(c.receiverReady(reply), reply)
def read(o, i):
    r = GXReplyData(); block(c.read(o, i), r); c.updateValue(o, i, r.value); return o.getValues()[i - 1]
r = GXReplyData(); q = c.snrmRequest()
if q: block(q, r); c.parseUAResponse(r.data)
r = GXReplyData(); block(c.aarqRequest(), r); c.parseAareResponse(r.data); r.clear()
if c.authentication > Authentication.LOW:
    block(c.getApplicationAssociationRequest(), r); c.parseApplicationAssociationResponse(r.data)
print("ASSOCIATED", a.auth, "cipher" if a.cipher else "plain", "PDU", c.maxReceivePDUSize)
reg = GXDLMSRegister(a.reg); read(reg, 3); print("register", a.reg, read(reg, 2), "scaler", reg.scaler, "unit", int(reg.unit))
pg = GXDLMSProfileGeneric(a.pg); read(pg, 3); print("profile columns", [(o.logicalName, k.attributeIndex) for o, k in pg.captureObjects])
rows = read(pg, 2); print("profile rows", len(rows), "first", rows[0] if rows else None)
if a.entry:
    i, n = map(int, a.entry.split(",")); r = GXReplyData(); block(c.readRowsByEntry(pg, i, n), r); c.updateValue(pg, 2, r.value)
    print("entry", i, n, "->", len(pg.buffer), pg.buffer[0] if pg.buffer else None)
if a.range:
    f, t = [datetime.datetime.fromisoformat(x) for x in a.range.split(",")]; r = GXReplyData(); block(c.readRowsByRange(pg, f, t), r); c.updateValue(pg, 2, r.value)
    print("range ->", len(pg.buffer), str(pg.buffer[0][0]) if pg.buffer else None, str(pg.buffer[-1][0]) if pg.buffer else None)
if a.list:
    cl = GXDLMSClock("0.0.1.0.0.255"); ls = [(reg, 2), (cl, 2), (reg, 3)]; r = GXReplyData(); vals = []
    for f in c.readList(ls):
        block(f, r); vals += r.value if isinstance(r.value, list) else [r.value]
    print("list ->", [str(v) for v in vals])
try:
    rr = c.releaseRequest()
    if rr: r = GXReplyData(); block(rr, r)
except Exception as e: print("release:", repr(e))
try:
    r = GXReplyData(); dq = c.disconnectRequest()
    if dq: block(dq, r)
except Exception as e: print("disc:", repr(e))
