#!/usr/bin/env python3
"""Several Modbus units on one line, on PyPI pymodbus, a server nobody here wrote.

 modbus_bus.py /path/of/tty UNIT,UNIT,... | tcp PORT UNIT,UNIT,... | udp HOST PORT UNIT,UNIT,... (RTU frames)

Each unit has holding registers 0..9 = 100..109 and answers 43/14 with maker, product code, version.
Prints "ready" when it listens.
"""
import asyncio
import sys

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusUdpServer

units = [int(u) for u in sys.argv[-1].split(",")]
block = lambda: ModbusSequentialDataBlock(1, list(range(100, 110)))
context = ModbusServerContext(devices={u: ModbusDeviceContext(hr=block(), ir=block()) for u in units}, single=False)
identity = ModbusDeviceIdentification()
identity.VendorName, identity.ProductCode, identity.MajorMinorRevision = "Pymodbus", "PM", "3.16"


def as_on_a_bus(sending, data):
    """Nobody answers for a unit that is not there (pymodbus would, with exception 4, as over TCP)."""
    return b"" if sending and data and data[0] not in units else data


async def main():
    if sys.argv[1] == "tcp":
        server = ModbusTcpServer(
            context, framer=FramerType.SOCKET, identity=identity, address=("127.0.0.1", int(sys.argv[2]))
        )
    elif sys.argv[1] == "udp":
        server = ModbusUdpServer(
            context, framer=FramerType.RTU, identity=identity, address=(sys.argv[2], int(sys.argv[3])),
            trace_packet=as_on_a_bus,
        )
    else:
        server = ModbusSerialServer(
            context, framer=FramerType.RTU, identity=identity, port=sys.argv[1], baudrate=9600, bytesize=8,
            parity="N", stopbits=1, trace_packet=as_on_a_bus,
        )
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
