#!/usr/bin/env python3
"""Modbus meter on PyPI pymodbus, a server nobody here wrote.

 modbus_meter.py rtu /path/of/tty | ascii /path/of/tty | tcp PORT | rtutcp PORT

Unit 1: holding 0..9 = 100..109, holding 100..101 = float 230.5, input 0..199 = 200..399,
coils and discrete inputs alternate 1 0 1 0 ... It tells its identification. With "sunspec" as third word
its holding registers from 40000 on are a SunSpec device: common block (1) and meter (203).
Prints "ready" when it listens.
"""
import asyncio
import sys

from pymodbus import FramerType, ModbusDeviceIdentification
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


def text(words, value):
    """A SunSpec string of so many registers."""
    data = value.encode().ljust(2 * words, b"\0")
    return [data[i] << 8 | data[i + 1] for i in range(0, 2 * words, 2)]


def sunspec():
    """A meter as a maker would lay it out, with a phase that is not connected."""
    common = [1, 66] + text(16, "Maker") + text(16, "M3") + text(8, "") + text(8, "1.2") + text(16, "42") + [7, 0]
    meter = [0x8000] * 105
    meter[0:5] = [123, 100, 23, 0x8000, 0xFFFF]  # A, per phase, A_SF = -1
    meter[5:14] = [2305, 2301, 2309, 0x8000, 3990, 0x8000, 0x8000, 0x8000, 0xFFFF]  # V, V_SF = -1
    meter[14:16] = [5000, 0xFFFE]  # Hz, Hz_SF = -2
    meter[16:21] = [0x10000 - 250, 0x10000 - 250, 0, 0x8000, 1]  # W, W_SF = 1
    meter[36:53] = [0, 1234] + [0, 0] * 3 + [1, 0] + [0, 0] * 3 + [3]  # Wh exported, imported, TotWh_SF = 3
    return text(2, "SunS") + common + [203, 105] + meter + [0xFFFF, 0]


if sys.argv[3:] == ["sunspec"]:
    device = ModbusDeviceContext(hr=ModbusSequentialDataBlock(40001, sunspec()))
    context = ModbusServerContext(devices={1: device}, single=False)

identity = ModbusDeviceIdentification(
    info_name={
        "VendorName": "Vendor",
        "ProductCode": "PC1",
        "MajorMinorRevision": "3.16",
        "VendorUrl": "https://example.org/" + "long/" * 40,
        "ProductName": "Product " + "n" * 100,
        "ModelName": "Model",
    }
)


def as_on_a_bus(sending, data):
    """Nobody answers for a unit that is not there (pymodbus would, as a gateway does)."""
    return b"" if sending and data[0] != 1 else data


async def main():
    mode, where = sys.argv[1], sys.argv[2]
    if mode in ("rtu", "ascii"):
        rtu = mode == "rtu"
        server = ModbusSerialServer(
            context, framer=FramerType.RTU if rtu else FramerType.ASCII, identity=identity, port=where,
            baudrate=9600, bytesize=8, parity="N", stopbits=1, trace_packet=as_on_a_bus if rtu else None,
        )
    else:
        framer = FramerType.SOCKET if mode == "tcp" else FramerType.RTU
        server = ModbusTcpServer(context, framer=framer, identity=identity, address=("127.0.0.1", int(where)))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
