"""Two codecs of short messages nobody here wrote, python-messaging and python-gsmmodem.

Reads one JSON object a line from standard input, writes one answer a line: {"submit": [NUMBER, TEXT]} gives the PDUs that
each makes of it, {"deliver": PDU} what each reads in it.
"""
import json
import sys
import warnings

warnings.simplefilter("ignore")
from gsmmodem.pdu import Concatenation, decodeSmsPdu, encodeSmsSubmitPdu
from messaging.sms import SmsDeliver, SmsSubmit

for line in sys.stdin:
    question = json.loads(line)
    if "submit" in question:
        number, text = question["submit"]
        answer = {
            "messaging": [[pdu.pdu, int(pdu.length)] for pdu in SmsSubmit(number, text).to_pdu()],
            "gsmmodem": [[str(pdu), pdu.tpduLength] for pdu in encodeSmsSubmitPdu(number, text, reference=7)],
        }
    else:
        pdu = question["deliver"]
        one = SmsDeliver(pdu).data
        other = decodeSmsPdu(pdu)
        parts = [element for element in other.get("udh", []) if isinstance(element, Concatenation)]
        part = [parts[0].reference, parts[0].parts, parts[0].number] if parts else None
        answer = {
            "messaging": [one["number"], one["text"], one["date"].strftime("%Y-%m-%dT%H:%M:%SZ"),
                          [one["ref"], one["cnt"], one["seq"]] if one.get("cnt") else None],
            "gsmmodem": [other["number"], other["text"], None, part],
        }
    print(json.dumps(answer), flush=True)
