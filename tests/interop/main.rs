//! Clients that nobody here wrote, against the program over real sockets: `rumqttc`, Eclipse Paho
//! for Python, `mosquitto_pub` and `mosquitto_sub`, and MQTT.js. `scripts/test.sh` installs them.

mod queues;
mod rumqttc_v4;
mod rumqttc_v5;
mod scripts;
