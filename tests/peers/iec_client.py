#!/usr/bin/env python3
"""Independent client: PyPI iec62056-21 0.0.2 (BSD-3) reads the meter at a pty: iec_client.py PATH [program]
With "program" it gives the password, reads 0.0.0 and 9.9.9, writes 0.9.1 and breaks off. Prints one line per data set: address TAB value TAB unit. The line runs at 8N1 (a pty has no parity)."""
import os, sys, serial
from iec62056_21.client import Iec6205621Client
from iec62056_21 import transports


class Line(transports.SerialTransport):
    def connect(self):
        self.port = serial.Serial(sys.argv[1], baudrate=300, parity="N", stopbits=1, bytesize=8, timeout=10)

    def switch_baudrate(self, baud):  # upstream reopens as 7E1 after 0.5 s, which no pty can do
        if os.environ.get("IEC_SWITCH"):  # somebody else sets the speed of the far end, and says when it is set
            print("switch", baud, flush=True)
            sys.stdin.readline()
        self.port.baudrate = baud


client = Iec6205621Client(Line(port=sys.argv[1]), password="00000000")
client.connect()
if sys.argv[2:] == ["program"]:
    challenge = client.access_programming_mode()
    print("challenge", challenge.command, challenge.command_type, sep="\t")
    client.rest()
    client.transport.send(b"\x01P1\x02(00000000)\x03a")  # upstream's own call fails: a data set must have an address
    print("password", "ok" if client._recv_ack() == "\x06" else "refused", sep="\t")
    for address in ("0.0.0", "9.9.9"):
        client.rest()
        answer = client.read_single_value(address, "")
        print(answer.address, answer.value, answer.unit, sep="\t")
    client.rest()
    client.write_single_value("0.9.1", "120000")
    client.rest()
    client.send_break()
    client.rest(1)
    sys.exit()
readout = client.standard_readout()
print("ident", client.manufacturer_id, client.identification, client.switchover_baudrate, sep="\t")


def walk(thing):
    if hasattr(thing, "address") and hasattr(thing, "value"):
        yield thing
    for name in ("data", "data_block", "data_lines", "data_sets"):
        inner = getattr(thing, name, None)
        for child in inner if isinstance(inner, (list, tuple)) else [inner] if inner is not None else []:
            yield from walk(child)


for item in walk(readout):
    print(item.address, item.value, item.unit, sep="\t")
client.disconnect()
