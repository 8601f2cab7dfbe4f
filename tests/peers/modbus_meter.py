#!/usr/bin/env python3
"""Modbus meter on PyPI pymodbus, a server nobody here wrote.

 modbus_meter.py rtu /path/of/tty | tcp PORT | rtutcp PORT

Unit 1: holding 0..9 = 100..109, holding 100..101 = float 230.5, input 0..199 = 200..399,
coils and discrete inputs alternate 1 0 1 0 ... Prints "ready" when it listens.
"""
import asyncio
import sys

from pymodbus import FramerType
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusSerialServer, ModbusTcpServer

holding = [0] * 200
holding[0:10] = range(100, 110)
holding[100:102] = [0x4366, 0x8000]
device = ModbusDeviceContext(
    di=ModbusSequentialDataBlock(1, [1, 0] * 50),
    co=ModbusSequentialDataBlock(1, [True, False] * 50),
    hr=ModbusSequentialDataBlock(1, holding),
    ir=ModbusSequentialDataBlock(1, list(range(200, 400))),
)
context = ModbusServerContext(devices={1: device}, single=False)


def as_on_a_bus(sending, data):
    """Nobody answers for a unit that is not there (pymodbus would, as a gateway does)."""
    return b"" if sending and data[0] != 1 else data


async def main():
    mode, where = sys.argv[1], sys.argv[2]
    if mode == "rtu":
        server = ModbusSerialServer(
            context, framer=FramerType.RTU, port=where, baudrate=9600, bytesize=8, parity="N", stopbits=1,
            trace_packet=as_on_a_bus,
        )
    else:
        framer = FramerType.SOCKET if mode == "tcp" else FramerType.RTU
        server = ModbusTcpServer(context, framer=framer, address=("127.0.0.1", int(where)))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
