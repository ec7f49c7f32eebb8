// A peer for foreign_test.go, on the package ws. What peer.py is for Python.
//
//	node peer.cjs deflate|plain            serves
//	node peer.cjs deflate|plain ws://…     is a client, and checks
//	node peer.cjs deflate|plain ws://… -   is a client that waits for a message
"use strict";
const assert = require("node:assert");
const { on, once } = require("node:events");
const { randomBytes } = require("node:crypto");
const { WebSocket, WebSocketServer } = require("ws");

const [compression, url] = process.argv.slice(2);
const options = { perMessageDeflate: compression === "deflate" && { threshold: 0 } };

// send sends a message whole, or in four fragments.
function send(socket, data, binary, fragmented) {
	const size = fragmented ? Math.ceil(data.length / 4) : data.length;
	for (let at = 0; at < data.length; at += size) {
		socket.send(data.subarray(at, at + size), { binary, fin: at + size >= data.length });
	}
}

function serve() {
	const server = new WebSocketServer({ host: "127.0.0.1", port: 0, ...options });
	server.on("listening", () => console.log(server.address().port));
	server.on("connection", (socket) => {
		socket.send("hello");
		socket.on("message", (data, binary) => {
			const [command, code, ...reason] = binary ? [] : data.toString().split(" ");
			switch (command) {
			case "close":
				return socket.close(Number(code), reason.join(" "));
			case "ping":
				socket.once("pong", (payload) => socket.send("pong " + payload));
				return socket.ping("are you there");
			}
			send(socket, data, binary, data.length % 2 === 1);
		});
		socket.on("close", (code, reason) => console.log(`closed ${code} ${reason}`));
	});
}

async function dial() {
	const socket = new WebSocket(url, options);
	const messages = on(socket, "message");
	const receive = async () => (await messages.next()).value;
	await once(socket, "open");
	assert.strictEqual(socket.extensions, compression === "deflate" ? "permessage-deflate" : "");
	assert.strictEqual((await receive())[0].toString(), "hello");
	return { socket, receive };
}

async function check() {
	let { socket, receive } = await dial();
	let count = 1;
	for (const size of [1, 2, 125, 126, 127, 1023, 32768, 65535, 65536, 65537, 262143, 1 << 20]) {
		for (const [data, binary] of [[randomBytes(size), true], [Buffer.alloc(size, "lorem ipsum "), false]]) {
			for (const fragmented of [false, true]) {
				send(socket, data, binary, fragmented);
				const [got, gotBinary] = await receive();
				assert.strictEqual(gotBinary, binary);
				assert(data.equals(got), `${size} bytes have come back as ${got.length} others`);
				count++;
			}
		}
	}

	socket.ping("anybody");
	assert.strictEqual((await once(socket, "pong"))[0].toString(), "anybody");
	socket.send("ping");
	assert.strictEqual((await receive())[0].toString(), "pong are you there");
	console.log("messages", count + 1); // of the server

	socket.close(3001, "see you – 👋");
	assert.deepStrictEqual((await once(socket, "close"))[0], 3001);
	({ socket } = await dial());
	socket.send("close 4002 that is – enough");
	const [code, reason] = await once(socket, "close");
	assert.strictEqual(`${code} ${reason}`, "4002 that is – enough");
}

async function wait() {
	const { socket, receive } = await dial();
	console.log("open", process.pid);
	console.log("message", (await receive())[0].toString());
	socket.close();
}

[serve, check, wait][process.argv.length - 3]();
