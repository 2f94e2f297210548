// MQTT.js against a broker on 127.0.0.1: node mqtt_js_client.cjs PORT
"use strict";

const assert = require("node:assert");
const mqtt = require("mqtt");

const url = `mqtt://127.0.0.1:${process.argv[2]}`;
setTimeout(() => {
  console.error("no end in 60 s");
  process.exit(1);
}, 60_000).unref();

async function everyQos(protocolVersion) {
  const prefix = `js${protocolVersion}`;
  const connect = (name) =>
    mqtt.connectAsync(url, { protocolVersion, clientId: `${prefix}-${name}`, reconnectPeriod: 0 });
  const subscriber = await connect("sub");
  const publisher = await connect("pub");
  const received = [];
  const all = new Promise((resolve) => {
    subscriber.on("message", (topic, payload, packet) => {
      received.push(`${topic} ${payload} ${packet.qos}`);
      if (received.length === 90) resolve();
    });
  });
  const granted = await subscriber.subscribeAsync({ [`${prefix}/#`]: { qos: 2 } });
  assert.strictEqual(granted[0].qos, 2);
  for (const qos of [0, 1, 2]) {
    for (let number = 0; number < 30; number++) {
      await publisher.publishAsync(`${prefix}/${qos}`, String(number), { qos });
    }
  }
  await all;
  const expected = [0, 1, 2].flatMap((qos) =>
    Array.from({ length: 30 }, (_, number) => `${prefix}/${qos} ${number} ${qos}`));
  assert.deepStrictEqual(received, expected);
  await subscriber.unsubscribeAsync(`${prefix}/#`);
  await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
}

async function sharedSubscription() {
  const members = await Promise.all([0, 1].map((number) =>
    mqtt.connectAsync(url, { protocolVersion: 5, clientId: `member-${number}` })));
  const counts = [0, 0];
  const all = new Promise((resolve) => {
    members.forEach((member, index) => member.on("message", () => {
      counts[index] += 1;
      if (counts[0] + counts[1] === 100) resolve();
    }));
  });
  for (const member of members) await member.subscribeAsync("$share/js/work", { qos: 1 });
  for (let number = 0; number < 100; number++) {
    await members[0].publishAsync("work", String(number), { qos: 1 });
  }
  await all;
  assert.deepStrictEqual(counts, [50, 50]);
  await Promise.all(members.map((member) => member.endAsync()));
}

(async () => {
  await everyQos(4);
  await everyQos(5);
  await sharedSubscription();
  console.log("ok");
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
