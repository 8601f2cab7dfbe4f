"""Reads one message of a pushing meter with a library nobody here wrote.

python push_reader.py p1|p1-old|p1-ciphered|sml|dlms-hdlc|dlms-mbus|dlms-wrapper [encryption key] [authentication key] < bytes
Prints one JSON object: OBIS id -> value as text.
"""
import json
import sys

kind, keys = sys.argv[1], sys.argv[2:]
raw = sys.stdin.buffer.read()
values = {}
if kind == "sml":
    from smllib import SmlStreamReader

    stream = SmlStreamReader()
    stream.add(raw)
    frame = stream.get_frame()
    for message in frame.parse_frame():
        for entry in getattr(message.message_body, "val_list", None) or []:
            text = f"{entry.value}"
            if isinstance(entry.value, int) and entry.scaler is not None:
                text = f"{entry.value}e{entry.scaler}"
            values[str(entry.obis.obis_code)] = text
            if entry.status is not None:
                values[f"{entry.obis.obis_code}#status"] = f"{entry.status}"
elif kind.startswith("dlms-"):
    from gurux_dlms import GXByteBuffer, GXReplyData
    from gurux_dlms.enums import Authentication, InterfaceType, Security
    from gurux_dlms.secure import GXDLMSSecureClient

    carriers = {"hdlc": InterfaceType.HDLC, "mbus": InterfaceType.WIRED_MBUS, "wrapper": InterfaceType.WRAPPER}
    client = GXDLMSSecureClient(True, -1, -1, Authentication.NONE, None, carriers[kind[5:]])
    if keys:
        client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
        client.ciphering.blockCipherKey = bytearray.fromhex(keys[0])
        client.ciphering.authenticationKey = bytearray.fromhex(keys[1])
    stream, push, other = GXByteBuffer(raw), GXReplyData(), GXReplyData()
    # The library prints what it does to standard output, where the answer goes.
    answer, sys.stdout = sys.stdout, sys.stderr
    for _ in range(50):
        client.getData(stream, other, push)
        if push.value is not None and not push.isMoreData():
            break
    sys.stdout = answer

    def name(octets):
        a, b, c, d, e, f = octets
        return f"{a}-{b}:{c}.{d}.{e}*{f}"

    def is_name(thing):
        return isinstance(thing, (bytes, bytearray)) and len(thing) == 6 and thing[5] == 255

    def walk(things):
        for at, thing in enumerate(things):
            if isinstance(thing, list):
                walk(thing)
            elif is_name(thing) and at + 1 < len(things):
                value, scale = things[at + 1], (things[at + 2:at + 3] or [None])[0]
                exponent = f"e{scale[0]}" if isinstance(scale, list) and len(scale) == 2 else ""
                values[name(thing)] = f"{value}{exponent}"

    found = list(push.value)
    if found and isinstance(found[0], list) and len(found[0]) == len(found):
        # A push object list and the values that it lists: a value, then its scaler and unit.
        for (_, octets, attribute, _), value in zip(found[0], found):
            if attribute == 3:
                values[name(octets)] += f"e{value[0]}"
            elif not isinstance(value, list):
                values[name(octets)] = f"{value}"
    else:
        walk(found)
else:
    from dsmr_parser import telegram_specifications as specifications
    from dsmr_parser.parsers import TelegramParser

    if kind == "p1-ciphered":
        specification = dict(specifications.SAGEMCOM_T210_D_R)
        specification["objects"] = specifications.V5["objects"]
        parser = TelegramParser(specification)
        telegram = parser.parse(raw.hex(), encryption_key=keys[0], authentication_key=keys[1], throw_ex=True)
    else:
        seven = bytes(byte & 0x7F for byte in raw)
        specification = specifications.V2_2 if kind == "p1-old" else specifications.V5
        telegram = TelegramParser(specification).parse(seven.decode("ascii"), throw_ex=True)
    for name, thing in json.loads(telegram.to_json()).items():
        if isinstance(thing, list):
            for device in thing:
                values.update({f"device{device['CHANNEL_ID']}.{k}": str(v.get("value")) for k, v in device.items() if isinstance(v, dict)})
        else:
            values[name] = str(thing.get("value"))
print(json.dumps(values))
