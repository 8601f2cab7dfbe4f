"""Stands in for ModemManager's mmcli: the options that weir uses, in mmcli's own words. mmcli.py STATE OPTIONS ...

STATE is a file with JSON: what the modem is like, its messages and calls; every call's options are added to "asked".
"""
import fcntl
import json
import re
import sys

file = open(sys.argv[1], "r+", encoding="utf-8")
fcntl.flock(file, fcntl.LOCK_EX)
state = json.load(file)
options = sys.argv[2:]
state["asked"].append(options)


def end(code):
    file.seek(0)
    file.truncate()
    json.dump(state, file)
    file.flush()
    sys.exit(code)


def tell(text):
    print(text if isinstance(text, str) else json.dumps(text))
    end(0)


def refuse(words):
    print("error: " + words, file=sys.stderr)
    end(1)


def value(*names):
    for at, option in enumerate(options):
        for name in names:
            if option == name and at + 1 < len(options):
                return options[at + 1]
            if option.startswith(name + "="):
                return option.split("=", 1)[1]
    return None


def key_values(text):
    """Quotes of either kind, no way to write one inside."""
    found = {}
    rest = text
    while rest:
        match = re.match(r"""\s*(\w+)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^,]*))\s*(?:,|$)""", rest, re.S)
        if not match:
            refuse("couldn't create new SMS: invalid properties string")
        found[match[1]] = next(part for part in match.groups()[1:] if part is not None)
        rest = rest[match.end():]
    return found


MODEM = "/org/freedesktop/ModemManager1/Modem/0"
SIM = "/org/freedesktop/ModemManager1/SIM/0"
SMS = "/org/freedesktop/ModemManager1/SMS/"
if not state["running"]:
    refuse("couldn't find the ModemManager process in the bus")
if "-L" in options:
    tell({"modem-list": [MODEM]})
if value("-m", "--modem") not in (None, MODEM):
    refuse("couldn't find modem")
if value("-s", "--sms"):
    path = value("-s", "--sms")
    if path not in state["sms"]:
        refuse("couldn't find SMS")
    if "--send" in options:
        if state["refuse"]:
            refuse(state["refuse"].pop(0))
        state["sent"].append(state["sms"][path])
        tell("successfully sent the SMS")
    sms = state["sms"][path]
    content = {"data": "--", "number": sms["number"], "text": sms.get("text", "--")}
    properties = {"pdu-type": "deliver", "state": sms["state"], "timestamp": sms.get("timestamp", "--")}
    tell({"sms": {"content": content, "dbus-path": path, "properties": properties}})
if value("-i", "--sim"):
    if value("--pin"):
        state["pins"].append(value("--pin"))
        if state.get("busy", 0) > 0:
            state["busy"] -= 1
            refuse("couldn't send PIN code to the SIM: 'GDBus.Error:org.freedesktop.ModemManager1.Error.MobileEquipment.SimBusy: SIM busy'")
        if value("--pin") != state["pin"]:
            refuse("couldn't send PIN code to the SIM: 'GDBus.Error: Incorrect password'")
        state["locked"] = False
        tell("successfully sent PIN code to the SIM")
    tell({"sim": {"dbus-path": SIM, "properties": {"iccid": "8934071100123456789", "imsi": "--"}}})
if value("-o", "--call"):
    call = state["calls"][value("-o", "--call")]
    if "--hangup" in options:
        call["state"] = "terminated"
        tell("successfully hung up the call")
    tell({"call": {"properties": {"direction": "incoming", "number": call["number"], "state": call["state"]}}})
if "--messaging-list-sms" in options:
    tell({"modem.messaging.sms": list(state["sms"])})
if value("--messaging-create-sms"):
    made = key_values(value("--messaging-create-sms"))
    path = f"{SMS}{100 + len(state['asked'])}"
    state["sms"][path] = {"state": "unknown", **made}
    tell(f"Successfully created new SMS: {path}")
if value("--messaging-delete-sms"):
    del state["sms"][value("--messaging-delete-sms")]
    tell("successfully deleted SMS from modem")
if "--voice-list-calls" in options:
    tell({"modem.voice.call": list(state["calls"])})
if value("--voice-delete-call"):
    del state["calls"][value("--voice-delete-call")]
    tell("successfully deleted call from modem")
if "--signal-get" in options:
    tell({"modem": {"signal": {"lte": {"rssi": "-67.00", "rsrp": "-95.00", "rsrq": "-11.00"}}}})
if "--location-get" in options:
    tell({"modem": {"location": {"3gpp": {"cid": "0001A2B3", "lac": "0000", "mcc": "214", "mnc": "07", "tac": "00C3"}}}})
if value("--command"):
    if not state["debug"]:
        refuse("command failed: 'GDBus.Error: Cannot send AT command to modem: operation only allowed in debug mode'")
    tell("response: '+CSQ: 20,99'")
if any(option.startswith("--signal-setup") for option in options) or "--reset" in options:
    tell("successfully done")
if "--3gpp-register-home" in options:
    tell("successfully registered the modem")
locked = state["locked"]
tell({
    "modem": {
        "3gpp": {
            "imei": "356938035643809",
            "operator-code": "21407",
            "operator-name": "--" if locked else "Movistar",
            "registration-state": "--" if locked else "home",
        },
        "generic": {
            "manufacturer": "QUALCOMM INCORPORATED",
            "model": "EC25",
            "revision": "EC25EFAR06",
            "equipment-identifier": "356938035643809",
            "state": "locked" if locked else "registered",
            "unlock-required": "sim-pin" if locked else "sim-pin2",
            "access-technologies": ["lte"],
            "signal-quality": {"recent": "yes", "value": "74"},
            "sim": SIM,
            "ports": ["cdc-wdm0 (qmi)", state["port"] + " (at)", "wwan0 (net)"],
        },
    }
})
