"""An M-Bus master that nobody here wrote (PyPI pyMeterBus): reads a slave, or searches by digits.

Usage: mbus_master.py URL read ADDRESS | mbus_master.py URL search
Prints one JSON object a line. ADDRESS is a primary address or 16 hex digits (secondary).
"""
import json
import sys

import meterbus
import serial


def answer(line, length):
    data = meterbus.recv_frame(line, length)
    return meterbus.load(data) if data else data


def read(line, address):
    if len(address) == 16:
        meterbus.send_select_frame(line, address)
        assert isinstance(answer(line, 1), meterbus.TelegramACK), "no E5 to the selection"
        primary = meterbus.ADDRESS_NETWORK_LAYER
    else:
        primary = int(address)
        meterbus.send_ping_frame(line, primary)
        assert isinstance(answer(line, 1), meterbus.TelegramACK), "no E5 to SND_NKE"
    frames, request = [], None
    meterbus.send_request_frame_multi(line, primary)
    while True:
        frame = answer(line, meterbus.FRAME_DATA_LENGTH)
        frames.append(frame)
        if not frame.more_records_follow:
            break
        request = meterbus.TelegramShort()
        toggle = 0 if len(frames) % 2 else meterbus.CONTROL_MASK_FCB
        request.header.cField.parts = [meterbus.CONTROL_MASK_REQ_UD2 | meterbus.CONTROL_MASK_DIR_M2S | meterbus.CONTROL_MASK_FCV | toggle]
        request.header.aField.parts = [primary]
        meterbus.send_request_frame_multi(line, req=request)
    for frame in frames:
        print(frame.to_JSON().replace("\n", ""), flush=True)


def search(line, prefix=""):
    mask = prefix + "F" * (8 - len(prefix)) + "FFFFFFFF"
    meterbus.send_select_frame(line, mask)
    try:
        heard = answer(line, 1)
    except meterbus.MBusFrameDecodeError:
        heard = False
    if heard is None:
        return
    if heard:
        meterbus.send_request_frame(line, meterbus.ADDRESS_NETWORK_LAYER)
        try:
            frame = answer(line, meterbus.FRAME_DATA_LENGTH)
        except meterbus.MBusFrameDecodeError:
            frame = False
        if frame:
            print(json.dumps({"found": frame.secondary_address}), flush=True)
            return
        line.reset_input_buffer()
    if len(prefix) < 8:
        for digit in "0123456789":
            search(line, prefix + digit)


# Silence is told from a slave that was not given the processor by patience only.
with serial.serial_for_url(sys.argv[1], baudrate=2400, timeout=1) as port:
    if sys.argv[2] == "read":
        read(port, sys.argv[3])
    else:
        search(port)
