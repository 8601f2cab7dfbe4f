"""A consumer as docs/mqtt.md describes it: consumer.py PORT PAGE

Subscribes to all topics with paho-mqtt, opens payloads with the code block "python consumer" of the page and
prints one JSON object a message: {"topic", "bytes", "compressed", "frames"}. Says "ready" when it hears.
"""

import json
import sys

import paho.mqtt.client as mqtt

port, page = int(sys.argv[1]), sys.argv[2]
text = open(page, encoding="utf-8").read()
exec(text.split("```python consumer\n", 1)[1].split("```", 1)[0])


def on_connect(client, _userdata, _flags, _reason, _properties):
    client.subscribe("#", qos=1)


def on_subscribe(*_):
    print("ready", flush=True)


def on_message(_client, _userdata, message):
    seen = {
        "topic": message.topic,
        "bytes": len(message.payload),
        "compressed": message.payload[:1] != b"{",
        "frames": frames(message.payload),
    }
    print(json.dumps(seen), flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect("127.0.0.1", port)
client.loop_forever()
