"""Reads one message of a pushing meter with a library nobody here wrote.

python push_reader.py p1|p1-old|p1-ciphered|sml [encryption key] [authentication key] < bytes
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
