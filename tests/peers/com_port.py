#!/usr/bin/env python3
"""A program that uses a serial port through RFC 2217, on PyPI pyserial, a client nobody here wrote.

 com_port.py HOST:PORT[?OPTIONS OF PYSERIAL]

Whoever is at the far end of the line answers what it reads in capitals. The last line printed is "done".
"""
import sys
import time

import serial

give_up = time.monotonic() + 60
while True:
    try:
        port = serial.serial_for_url(f"rfc2217://{sys.argv[1]}", baudrate=9600, timeout=60)
        break
    except (serial.SerialException, OSError) as problem:
        if time.monotonic() > give_up:
            raise
        print(f"again: {problem}", file=sys.stderr, flush=True)
        time.sleep(0.2)


def talk(words):
    port.write(words)
    print(port.baudrate, port.bytesize, port.parity, port.stopbits, port.read(len(words)), flush=True)


talk(b"one")
port.baudrate = 19200
talk(b"two")
port.bytesize, port.parity = serial.SEVENBITS, serial.PARITY_EVEN
talk(b"three")
port.stopbits = serial.STOPBITS_TWO
port.baudrate = 300
talk(b"four")
port.bytesize, port.parity, port.stopbits = serial.EIGHTBITS, serial.PARITY_NONE, serial.STOPBITS_ONE
port.baudrate = 115200
# Each byte there is: 255 is doubled on its way.
everything = bytes(range(256)) * 8
port.write(everything)
print("all bytes", port.read(len(everything)) == everything.upper(), flush=True)
port.rts = False
port.dtr = False
port.rts = True
port.dtr = True
port.reset_input_buffer()
port.reset_output_buffer()
talk(b"five")
try:
    port.parity = serial.PARITY_MARK
    print("mark is there", flush=True)
except ValueError:
    print("mark is refused", flush=True)
port.close()
print("done", flush=True)
