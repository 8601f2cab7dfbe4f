#!/usr/bin/env python3
"""Reads unit 1 with PyPI pymodbus over RTU, one read after the other: modbus_client.py DEVICE BAUD COUNT

Prints reads per second.
"""
import sys
import time

from pymodbus import FramerType
from pymodbus.client import ModbusSerialClient

device, baud, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = ModbusSerialClient(device, framer=FramerType.RTU, baudrate=baud, bytesize=8, parity="N", stopbits=1, timeout=10)
assert client.connect()
for warm in (10, count):
    begun = time.monotonic()
    for _ in range(warm):
        answer = client.read_holding_registers(0, count=4, device_id=1)
        assert not answer.isError() and len(answer.registers) == 4, answer
    took = time.monotonic() - begun
print(count / took)
