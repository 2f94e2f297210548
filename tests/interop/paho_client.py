"""Eclipse Paho against a broker on 127.0.0.1: python paho_client.py PORT"""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])
TIMEOUT = 20


def client(name, protocol, **connect):
    received = queue.Queue()
    ready = threading.Event()
    subscribed = threading.Event()
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol)
    made.on_connect = lambda *args: ready.set()
    made.on_subscribe = lambda *args: subscribed.set()
    made.on_message = lambda _, __, message: received.put(message)
    made.received = received
    made.subscribed = subscribed
    made.connect("127.0.0.1", PORT, keepalive=30, **connect)
    made.loop_start()
    assert ready.wait(TIMEOUT), "no CONNACK"
    return made


def subscribe(made, *args, **options):
    made.subscribed.clear()
    made.subscribe(*args, **options)
    assert made.subscribed.wait(TIMEOUT), "no SUBACK"


def every_qos(protocol, label):
    subscriber = client(f"sub-{label}", protocol)
    publisher = client(f"pub-{label}", protocol)
    subscribe(subscriber, [(f"{label}/+", 2)])
    for qos in (0, 1, 2):
        for number in range(50):
            info = publisher.publish(f"{label}/{qos}", f"{qos}-{number}", qos=qos)
        info.wait_for_publish(TIMEOUT)
        for number in range(50):
            message = subscriber.received.get(timeout=TIMEOUT)
            assert message.payload.decode() == f"{qos}-{number}", message.payload
            assert message.qos == qos
    large = bytes(range(256)) * 4096
    publisher.publish(f"{label}/large", large, qos=1).wait_for_publish(TIMEOUT)
    assert subscriber.received.get(timeout=TIMEOUT).payload == large
    for made in (subscriber, publisher):
        made.disconnect()
        made.loop_stop()


def will_and_takeover(protocol, label):
    watcher = client(f"watcher-{label}", protocol)
    subscribe(watcher, f"will/{label}", qos=1)
    doomed = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="doomed", protocol=protocol)
    doomed.will_set(f"will/{label}", "gone", qos=1)
    gone = threading.Event()
    doomed.on_disconnect = lambda *args: gone.set()
    ready = threading.Event()
    doomed.on_connect = lambda *args: ready.set()
    doomed.connect("127.0.0.1", PORT)
    doomed.loop_start()
    assert ready.wait(TIMEOUT)
    other = client("doomed", protocol)
    assert gone.wait(TIMEOUT), "the old connection was not closed"
    doomed.loop_stop()
    assert watcher.received.get(timeout=TIMEOUT).payload == b"gone"
    for made in (other, watcher):
        made.disconnect()
        made.loop_stop()


def properties_of_5():
    subscriber = client("sub-properties", mqtt.MQTTv5)
    options = Properties(PacketTypes.SUBSCRIBE)
    options.SubscriptionIdentifier = 77
    subscribe(subscriber, "prop/#", qos=1, properties=options)
    publisher = client("pub-properties", mqtt.MQTTv5)
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("a", "1"), ("a", "2"), ("b", "3")]
    sent.ContentType = "text/plain"
    sent.ResponseTopic = "reply"
    sent.CorrelationData = b"\x00\x01"
    sent.MessageExpiryInterval = 60
    publisher.publish("prop/x", "x", qos=1, properties=sent).wait_for_publish(TIMEOUT)
    got = subscriber.received.get(timeout=TIMEOUT).properties
    assert got.UserProperty == [("a", "1"), ("a", "2"), ("b", "3")]
    assert (got.ContentType, got.ResponseTopic) == ("text/plain", "reply")
    assert (got.CorrelationData, got.SubscriptionIdentifier) == (b"\x00\x01", [77])
    assert got.MessageExpiryInterval <= 60
    for made in (subscriber, publisher):
        made.disconnect()
        made.loop_stop()


for protocol, label in ((mqtt.MQTTv31, "v31"), (mqtt.MQTTv311, "v311"), (mqtt.MQTTv5, "v5")):
    every_qos(protocol, label)
    will_and_takeover(protocol, label)
properties_of_5()
print("ok")
