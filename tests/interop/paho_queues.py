"""Eclipse Paho and partitioned queues of a broker on 127.0.0.1.

    python paho_queues.py PORT all        everything, in both versions
    python paho_queues.py PORT settle     settles by verbs until it loses the connection, and prints
                                          each payload when that is confirmed
    python paho_queues.py PORT rest       settles all there is, up to "end" of each key, and prints it
"""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])
TIMEOUT = 20
KEYS = 8


def properties(packet, pairs):
    made = Properties(packet)
    made.UserProperty = pairs
    return made


class Client:
    def __init__(self, name, protocol=mqtt.MQTTv5, by_hand=False):
        self.is_v5 = protocol == mqtt.MQTTv5
        self.received = queue.Queue()
        self.answers = {}
        self.answered = threading.Condition()
        self.granted = queue.Queue()
        ready = threading.Event()
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, manual_ack=by_hand
        )
        self.mqtt.on_connect = lambda *args: ready.set()
        self.mqtt.on_subscribe = lambda _, __, ___, codes, ____: self.granted.put(codes[0])
        self.mqtt.on_message = lambda _, __, message: self.received.put(message)
        self.mqtt.on_publish = lambda _, __, mid, code, ___: self.on_answer(mid, code)
        self.mqtt.connect("127.0.0.1", PORT, keepalive=30)
        self.mqtt.loop_start()
        assert ready.wait(TIMEOUT), "no CONNACK"

    def on_answer(self, mid, code):
        with self.answered:
            self.answers[mid] = code.value
            self.answered.notify_all()

    def answer(self, info):
        """The reason code of what answered a publication."""
        with self.answered:
            assert self.answered.wait_for(lambda: info.mid in self.answers, TIMEOUT), "no answer"
            return self.answers.pop(info.mid)

    def subscribe(self, topic, qos=1, **asked):
        pairs = [(name.replace("_", "-"), value) for name, value in asked.items()]
        options = properties(PacketTypes.SUBSCRIBE, pairs) if self.is_v5 else None
        if self.is_v5:
            self.mqtt.subscribe(
                topic, options=mqtt.SubscribeOptions(qos=qos), properties=options
            )
        else:
            self.mqtt.subscribe(topic, qos)
        return self.granted.get(timeout=TIMEOUT).value

    def publish(self, topic, payload="", qos=1, pairs=()):
        options = properties(PacketTypes.PUBLISH, list(pairs)) if self.is_v5 else None
        return self.mqtt.publish(topic, payload, qos=qos, properties=options)

    def get(self):
        return self.received.get(timeout=TIMEOUT)

    def verb(self, name, message, *pairs):
        """Says what becomes of a message."""
        known = user(message)
        about = [(key, known[key]) for key in ("message-id", "group-id")]
        address = "/".join(message.topic.split("/")[:2])
        return self.publish(f"{address}/${name}", pairs=about + list(pairs))

    def settle(self, name, message, *pairs):
        code = self.answer(self.verb(name, message, *pairs))
        assert code == 0, (name, code)

    def end(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def drop(self):
        """Breaks the connection, without DISCONNECT."""
        self.mqtt.on_disconnect = lambda *args: None
        self.mqtt.loop_stop()
        self.mqtt.socket().close()


def user(message):
    return dict(message.properties.UserProperty)


def text(message):
    return message.payload.decode()


def verbs_of_5():
    """Acknowledged, tried again, rejected, a dead letter, put back."""
    publisher, worker = Client("publisher"), Client("worker")
    assert worker.subscribe("$queue/jobs", consumer_group="billing") == 1
    for number in range(3):
        info = publisher.publish(f"$queue/jobs/eu/{number}", f"job {number}", pairs=[("a", "1")])
        assert publisher.answer(info) == 0
    jobs = {text(job): job for job in (worker.get() for _ in range(3))}
    job = jobs["job 0"]
    assert (job.topic, user(job)["attempt"]) == ("$queue/jobs/eu/0", "1")
    assert job.properties.UserProperty[0] == ("a", "1")
    worker.settle("ack", job)
    assert worker.answer(worker.verb("ack", job)) == 0x87, "settled twice"
    assert publisher.answer(publisher.verb("ack", jobs["job 1"])) == 0x87, "not its own"
    worker.settle("extend", jobs["job 1"])
    worker.settle("nack", jobs["job 1"], ("delay", "1ms"))
    again = worker.get()
    assert (text(again), user(again)["attempt"]) == ("job 1", "2")
    worker.settle("ack", again)
    worker.settle("reject", jobs["job 2"], ("reason", "no such customer"))
    doctor = Client("doctor")
    assert doctor.subscribe("$dlq/jobs", consumer_group="doctors") == 1
    letter = doctor.get()
    known = user(letter)
    assert (letter.topic, text(letter)) == ("$dlq/jobs/eu/2", "job 2")
    assert (known["x-dead-reason"], known["x-dead-detail"]) == ("rejected", "no such customer")
    assert (known["x-dead-queue"], known["x-dead-group"]) == ("jobs", "billing")
    redriven = doctor.publish("$dlq/jobs/$redrive", pairs=[("message-id", known["message-id"])])
    assert doctor.answer(redriven) == 0
    back = worker.get()
    assert (back.topic, text(back)) == ("$queue/jobs/eu/2", "job 2")
    assert [key for key in user(back) if key.startswith("x-dead")] == []
    worker.settle("ack", back)
    assert worker.subscribe("$queue/jobs", qos=0, consumer_group="billing") == 0x83
    for made in (publisher, worker, doctor):
        made.end()


def stream_of_5():
    publisher = Client("publisher")
    for number in range(20):
        info = publisher.publish("$queue/log/k", str(number))
    assert publisher.answer(info) == 0
    for start, first in (("earliest", 0), ("15", 15)):
        reader = Client("reader")
        asked = {"consumer_group": f"from {start}", "stream_offset": start}
        assert reader.subscribe("$queue/log", **asked) == 1
        assert [text(reader.get()) for _ in range(first, 20)] == [
            str(number) for number in range(first, 20)
        ]
        reader.end()
    publisher.end()


def acknowledgement_settles(protocol, label):
    """What has no PUBACK when the connection breaks comes again, to whoever is there."""
    address = f"$queue/{label}"
    share = f"$share/g/{address}"
    asked = {"settle": "auto"} if protocol == mqtt.MQTTv5 else {}
    worker = Client(f"first-{label}", protocol, by_hand=True)
    assert worker.subscribe(share, **asked) == 1
    publisher = Client(f"publisher-{label}", protocol)
    for number in range(20):
        info = publisher.publish(f"{address}/{number}", str(number))
        assert publisher.answer(info) == 0
    came = [worker.get() for _ in range(20)]
    assert {text(message) for message in came} == {str(number) for number in range(20)}
    settled, kept = came[:10], came[10:]
    for message in settled:
        worker.mqtt.ack(message.mid, message.qos)
    # Answered behind the acknowledgements.
    assert worker.answer(worker.publish("other", "x")) in (0, 0x10)
    worker.drop()
    second = Client(f"second-{label}", protocol)
    assert second.subscribe(share, **asked) == 1
    assert {text(second.get()) for _ in kept} == {text(message) for message in kept}
    for made in (publisher, second):
        made.end()


def settle():
    worker = Client("worker")
    answers = queue.Queue()
    worker.mqtt.on_publish = lambda _, __, mid, code, ___: answers.put((mid, code.value))
    gone = threading.Event()
    worker.mqtt.on_disconnect = lambda *args: gone.set()
    worker.subscribe("$queue/jobs", consumer_group="g", prefetch="50")
    asked = {}
    while not gone.is_set() or not answers.empty():
        try:
            message = worker.received.get(timeout=0.01)
            asked[worker.verb("ack", message).mid] = text(message)
        except queue.Empty:
            pass
        while not answers.empty():
            mid, code = answers.get()
            if code == 0:
                print(asked[mid], flush=True)
    worker.mqtt.loop_stop()


def rest():
    worker = Client("successor")
    worker.subscribe("$queue/jobs", consumer_group="g", prefetch="50")
    ends = 0
    while ends < KEYS:
        message = worker.get()
        worker.settle("ack", message)
        ends += text(message) == "end"
        print(text(message), flush=True)
    worker.end()


if sys.argv[2] == "all":
    verbs_of_5()
    stream_of_5()
    acknowledgement_settles(mqtt.MQTTv311, "old")
    acknowledgement_settles(mqtt.MQTTv5, "new")
    print("ok")
else:
    {"settle": settle, "rest": rest}[sys.argv[2]]()
