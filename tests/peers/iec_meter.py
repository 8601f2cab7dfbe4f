#!/usr/bin/env python3
"""IEC 62056-21 meter simulator, Python stdlib only. Owns a pty MASTER (so it can see the baud rate that the
host set on the slave) or a loopback TCP port.
  iec_meter.py --link /run/iec0 --mode C --ident 5 [--strict-baud] [--parity] [--real-time] [--addr 12345678]
  iec_meter.py --tcp 8000 --mode C ...            modes: A B C D
  --fault bcc=1  corrupt the first BCC ; --fault echo  optical head echoes ; --fault junk  noise before ident
  --fault lost=1 the first answer of programming mode is not sent ; --fault twice=1 it is sent twice
Its load profile P.01 has a row for each quarter of January 2026 (times are ends, normal time), a header with another
status at noon; R5 gives it in one block, R6 in parts. P.98 has an event for each midnight.
Without --link it prints the pty's own name: "meter on PATH". With --strict-baud what the host sends counts as received
only after its time on the wire (a pty delivers at once), and the host must not have changed its rate before.
"""
import argparse, fcntl, os, pty, re, select, socket, struct, sys, termios, time, tty
SOH, STX, ETX, EOT, ACK, NAK = b"\x01", b"\x02", b"\x03", b"\x04", b"\x06", b"\x15"
C = {c: 300 << i for i, c in enumerate("0123456")}
B = {c: 600 << i for i, c in enumerate("ABCDEF")}
READOUT = ["F.F(00000000)", "0.0.0(12345678)", "0.9.1(120000)", "0.9.2(260115)", "1.8.0(001234.567*kWh)",
           "1.8.1(000834.100*kWh)", "1.8.2(000400.467*kWh)", "2.8.0(000000.000*kWh)", "1.6.1(02.345*kW)(2601121545)",
           "1.8.0*01(001100.000*kWh)", "32.7.0(230.4*V)", "C.1.0(12345678)"]
def par(b): return b | ((bin(b & 0x7F).count("1") & 1) << 7)
def bcc(d):
    x = 0
    for c in d: x ^= c
    return bytes([x & 0x7F])
def log(*a): print("%.3f" % time.monotonic(), *a, flush=True)
class Bye(Exception): pass
class Meter:
    def __init__(s, a, fd): s.a, s.fd, s.baud, s.faults = a, fd, 300, dict((f.split("=") + ["1"])[:2] for f in a.fault); s.buf = b""; s.programming = False; s.body = (b"", STX, ETX)
    def hostbaud(s):
        if s.a.tcp: return s.baud
        return struct.unpack_from("I", fcntl.ioctl(s.fd, 0x802C542A, bytes(44)), 40)[0]  # TCGETS2: also rates set as numbers (BOTHER)
    def send(s, d):
        if s.a.strict_baud and s.hostbaud() != s.baud: log("host at", s.hostbaud(), "but meter sends at", s.baud, "-> garbage"); d = bytes((c ^ 0x5A) & 0x7F for c in d)
        if s.a.parity: d = bytes(par(c) for c in d)
        if s.a.real_time:
            for c in d: os.write(s.fd, bytes([c])); time.sleep(10 / s.baud)
        else: os.write(s.fd, d)
        log("TX", d if not s.a.parity else bytes(c & 0x7F for c in d))
    def byte(s, t):
        if not s.buf:
            if not select.select([s.fd], [], [], t)[0]: return None
            try: s.buf = os.read(s.fd, 4096)
            except OSError: raise Bye
            if not s.buf: raise Bye
            if s.a.strict_baud: time.sleep(9 * len(s.buf) / s.baud)
            if s.a.strict_baud and s.hostbaud() != s.baud: log("host sends at", s.hostbaud(), "meter listens at", s.baud, "-> lost"); s.buf = b""; return s.byte(t)
            if s.a.strict_baud: time.sleep(len(s.buf) / s.baud)
            if "echo" in s.faults: os.write(s.fd, s.buf)
        c, s.buf = s.buf[:1], s.buf[1:]
        if s.a.parity and par(c[0] & 0x7F) != c[0]: log("parity error", c); return b"\x00"
        return bytes([c[0] & 0x7F])
    def line(s, t, end=b"\n"):
        d = b""
        while True:
            c = s.byte(t)
            if c is None: return None
            d += c; t = 1.5
            if d.endswith(end): log("RX", d); return d
    def frame(s, t):                                            # SOH ... ETX BCC  -> body or None
        d = b""
        while True:
            c = s.byte(t)
            if c is None: return None
            t = 1.5
            if c == NAK and not d: log("RX NAK -> repeat"); time.sleep(s.a.tr / 1000); s.block(*s.body); continue
            if c in (SOH, STX) and not d: d = c; continue
            if d: d += c
            if c in (ETX, EOT) and d:
                k = s.byte(1.5); log("RX", d, k); return d[1:] if k == bcc(d[1:]) else NAK
    def block(s, body, head=STX, end=ETX):
        s.body = (body, head, end); d = body + end; k = bcc(d)
        if int(s.faults.get("bcc", 0)) > 0: s.faults["bcc"] = int(s.faults["bcc"]) - 1; k = bytes([k[0] ^ 1])
        s.answer(head + d + k)
    def answer(s, d):
        for name, times in (("lost", 0), ("twice", 2)):
            if s.programming and int(s.faults.get(name, 0)) > 0 and not d.startswith(SOH):
                s.faults[name] = int(s.faults[name]) - 1
                for _ in range(times): s.send(d)
                return
        s.send(d)
    def rows(s, val):                                           # [(minutes since 2026-01-01, line)] that a request covers
        ends = [t[-10:] for t in val.strip("()").split(";")[:2] if t]
        stamp = lambda m: "2601%02d%02d%02d" % (1 + m // 1440, m // 60 % 24, m % 60)
        return [m for m in range(15, 31 * 1440, 15) if (not ends or stamp(m) >= ends[0]) and (len(ends) < 2 or stamp(m) <= ends[1])], stamp
    def profile(s, val):
        found, stamp = s.rows(val); lines = []; head = None
        for m in found:
            status = "%02X" % (0x40 if m // 720 % 2 else 0)
            if status != head: lines.append("P.01(0%s00)(%s)(15)(2)(1.5)(kW)(5.5)(kvar)" % (stamp(m), status)); head = status
            lines.append("(%06.3f)(%05.2f)" % (m / 1000, m / 15 % 100))
        return lines
    def readout(s):
        while True:
            s.block("".join(x + "\r\n" for x in READOUT).encode() + b"!\r\n")
            if s.a.mode == "A": return
            c = s.byte(1.5)
            if c != NAK: return
            log("RX NAK -> repeat")
    def session(s):
        s.baud = 300; d = s.line(3600)
        if d is None: return
        m = re.search(rb"/\?([^!\r\n]{0,32})!\r\n$", d)
        if not m or (m.group(1).lstrip(b"0") not in (b"", s.a.addr.encode().lstrip(b"0"))): log("not for me"); return
        time.sleep(s.a.tr / 1000)
        if "junk" in s.faults: os.write(s.fd, b"\x00\xff\x7f")
        z = s.a.ident
        s.send(b"/" + s.a.manuf.encode() + z.encode() + (b"\\2" if s.a.mode == "E" else b"") + s.a.model.encode() + b"\r\n")
        if s.a.mode == "A": time.sleep(s.a.tr / 1000); s.readout(); return
        if s.a.mode == "B": time.sleep(s.a.tr / 1000); s.baud = B[z]; s.readout(); return
        t0 = time.monotonic(); d = s.line(1.5)
        if d is None or not re.match(rb"\x06[0-2][0-9A-F][0-9]\r\n$", d): log("no/invalid option select -> readout at 300"); s.readout(); return
        zz, y = chr(d[2]), chr(d[3])
        time.sleep(s.a.tr / 1000)
        s.baud = C[zz] if zz == z else 300
        log("option", d, "after %.0f ms; baud now" % ((time.monotonic() - t0) * 1000), s.baud, "host", s.hostbaud())
        if y == "0": return s.readout()
        if y == "1":
            s.programming = True
            try: return s.prog()
            finally: s.programming = False
    def prog(s):
        s.block(b"P0" + STX + b"(" + s.a.seed.encode() + b")", head=SOH); ok = False; bad = 0
        while True:
            f = s.frame(120)
            if f is None: s.send(SOH + b"B0" + ETX + bcc(b"B0" + ETX)); log("120 s inactivity -> break"); return
            if f == NAK: s.send(NAK); continue
            time.sleep(s.a.tr / 1000)
            m = re.match(rb"([PWRECB])([0-9])(?:\x02([^(]*)((?:\([^)]*\))*))?\x03$", f)
            if not m: s.send(NAK); continue
            c, n, adr, val = m.group(1).decode(), m.group(2).decode(), (m.group(3) or b"").decode(), (m.group(4) or b"").decode()
            if c == "B": log("break -> session end"); return
            if c == "P":
                if val == "(%s)" % s.a.password: ok = True; s.send(ACK)
                else:
                    bad += 1; s.block(b"(ER06)") if s.a.errtext else s.send(NAK)
                    if bad >= 3: s.send(SOH + b"B0" + ETX + bcc(b"B0" + ETX)); return
                continue
            if c == "R" and n in "12":
                hit = [x for x in READOUT if x.startswith(adr + "(")]
                s.block((hit[0] if hit else "(ER01)").encode())
            elif c == "R" and n in "56" and adr == "P.98":
                s.block("".join("P.98(0%s00)(0000%04X)()()\r\n" % (s.rows(val)[1](m), m // 1440) for m in s.rows(val)[0] if m % 1440 == 0).encode())
            elif c == "R" and n in "56" and adr.startswith("P.0"):
                lines = s.profile(val); each = int((val.strip("()").split(";") + ["4"])[2:3][0]) if n == "6" else max(len(lines), 1)
                parts = ["".join(x + "\r\n" for x in lines[i:i + each]) for i in range(0, max(len(lines), 1), each)]
                for i, p in enumerate(parts):
                    while True:
                        s.block(p.encode(), end=ETX if i == len(parts) - 1 else EOT)
                        if i == len(parts) - 1: break
                        r = s.byte(5)
                        if r == ACK: time.sleep(s.a.tr / 1000); break
                        if r != NAK: return
            elif c == "W": s.send(ACK if ok else NAK)
            else: s.block(b"(ER02)")
    def push(s):
        s.baud = 2400
        while True:
            s.send(b"/" + s.a.manuf.encode() + b"3" + s.a.model.encode() + b"\r\n\r\n" + "".join(x + "\r\n" for x in READOUT).encode() + b"!\r\n"); time.sleep(s.a.period)
def main():
    p = argparse.ArgumentParser(); p.add_argument("--link"); p.add_argument("--tcp", type=int); p.add_argument("--mode", default="C"); p.add_argument("--ident", default="5")
    p.add_argument("--manuf", default="TST"); p.add_argument("--model", default="SIM-1.0"); p.add_argument("--addr", default="12345678"); p.add_argument("--password", default="00000000"); p.add_argument("--seed", default="")
    p.add_argument("--tr", type=int, default=250); p.add_argument("--period", type=float, default=2); p.add_argument("--strict-baud", action="store_true"); p.add_argument("--parity", action="store_true")
    p.add_argument("--real-time", action="store_true"); p.add_argument("--errtext", action="store_true"); p.add_argument("--fault", action="append", default=[])
    a = p.parse_args()
    def run(fd):
        m = Meter(a, fd)
        try:
            if a.mode == "D": m.push()
            while True: m.session(); m.buf = b""
        except Bye: log("peer gone")
    if a.tcp:
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", a.tcp)); s.listen(1)
        while True: c, _ = s.accept(); run(c.fileno()); c.close()
    m, sl = pty.openpty(); tty.setraw(sl); tty.setraw(m)
    if a.link:
        if os.path.islink(a.link): os.unlink(a.link)
        os.symlink(os.ttyname(sl), a.link)
    log("meter on", a.link or os.ttyname(sl)); run(m)
main()
