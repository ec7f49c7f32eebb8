// What all pages share: the socket, and the view of the gateway.

// A tab is known by a number of its own, and keeps its name when it is loaded again.
export const tab = Math.random().toString(36).slice(2, 12);
const $ = id => document.getElementById(id);

// connect keeps a socket open, hands each message to receive, and returns a function that sends one.
export function connect(receive = () => {}, closed = () => {}) {
	let socket, wait = 250, said = "it could not be opened"; // why the last one that was open has closed
	(function open() {
		const url = new URL("socket", location.href);
		url.protocol = url.protocol.replace("http", "ws");
		url.search = new URLSearchParams({ tab, name: sessionStorage.getItem("name") ?? "" });
		socket = new WebSocket(url);
		socket.onopen = () => {
			wait = 250;
			socket.opened = true;
			$("link").textContent = "";
		};
		socket.onmessage = event => {
			const message = JSON.parse(event.data);
			if (message.type === "state") show(message);
			else receive(message);
		};
		socket.onclose = event => {
			if (socket.opened) said = [event.code, event.reason].filter(Boolean).join(": ");
			$("link").textContent = `socket closed (${said}), opening a new one…`;
			closed();
			setTimeout(open, wait);
			wait = Math.min(2 * wait, 4000);
		};
	})();
	const send = message => {
		if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
	};
	$("crowd").onclick = () => send({ type: "crowd" });
	for (const button of document.querySelectorAll(".ways button")) {
		button.onclick = () => send({ type: "end", way: button.dataset.way });
	}
	return send;
}

// The last state, and how far the server's clock is ahead of ours.
let state, ahead = 0;
const now = () => Date.now() + ahead;
const number = n => n.toLocaleString("en");
const workspace = path => path.slice(path.lastIndexOf("/") + 1);

function show(message) {
	state = message.state;
	ahead = message.now - Date.now();

	$("changes").textContent = number(state.changes);
	$("cut").textContent = number(state.cut);
	$("cut").parentElement.classList.toggle("some", state.cut > 0);
	const busy = state.crowd > 0;
	$("crowd").setAttribute("aria-disabled", busy);
	$("crowd").style.setProperty("--done", busy ? `${(200 - state.crowd) / 2}%` : "0%");
	$("crowd").firstElementChild.textContent = !busy ? "Create and delete 100 workspaces"
		: state.crowd > 100 ? `Creating, ${200 - state.crowd} of 100` : `Deleting, ${200 - state.crowd - 100} of 100`;

	$("count").textContent = state.sockets.length;
	sync($("open"), state.sockets, socket => `${socket.tunnel} ${socket.name}`, socket => {
		const row = element("tr", "", { className: socket.tab === tab ? "mine" : "" });
		const name = element("th", "", { scope: "row" });
		name.append(dot(socket), socket.name || "…", element("small", workspace(socket.path)));
		const track = element("td", "", { className: "track" });
		track.append(element("i"));
		row.append(name, track, element("td", "", { className: "age" }), element("td", "", { className: "lived" }));
		row.socket = socket;
		return row;
	});
	if (state.ended.length) {
		sync($("ended"), state.ended.toReversed(), end => end.tunnel, end => {
			const item = element("li");
			item.append(dot(end), element("b", end.name), ` in ${workspace(end.path)} `,
				element("span", `ended by the ${end.by}: ${[end.how, end.why].filter(Boolean).join(", ")}`, { className: `by ${end.by}` }),
				end.said ? ` saying ${end.said}` : "",
				element("small", `after ${age(end.lasted)}, ${number(end.lived)} route changes and ${number(end.bytes)} bytes`));
			return item;
		});
	}
	tick();
}

// tick shows what changes by itself: ages, and the tracks that run from right to left.
const spans = { 30: "Last 30 seconds", 60: "Last minute", 120: "Last two minutes" };
function tick() {
	if (!state) return;
	const at = now();
	const oldest = Math.max(...state.sockets.map(socket => at - socket.opened));
	const seconds = Object.keys(spans).find(s => oldest < s * 1000) ?? 120, span = seconds * 1000;
	$("span").textContent = spans[seconds];
	for (const row of $("open").rows) {
		const { opened, since, tab: its } = row.socket;
		const old = Math.max(at - opened, 0), lived = state.changes - since;
		row.querySelector(".track i").style.left = `${Math.max(100 - old / span * 100, 0)}%`;
		row.querySelector(".age").textContent = age(old);
		row.querySelector(".lived").textContent = number(lived);
		if (its === tab && $("age")) {
			$("age").textContent = age(old);
			$("lived").textContent = number(lived);
		}
	}
	const most = Math.max(40, ...state.recent.map(second => second.n));
	$("open").style.setProperty("--storm", state.recent.map(({ at: second, n }) => {
		const right = (at - second * 1000) / span * 100, left = right - 1000 / span * 100;
		if (left > 100) return "";
		const strength = Math.round(25 + 75 * n / most);
		return `, linear-gradient(90deg, transparent ${100 - right}%, color-mix(in srgb, var(--storm-colour) ${strength}%, transparent) 0 ${100 - left}%, transparent 0)`;
	}).join("").slice(2) || "none");
}
setInterval(tick, 500);

function age(ms) {
	const s = Math.floor(ms / 1000), two = n => String(n).padStart(2, "0");
	return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

export function element(name, text = "", properties = {}) {
	const made = Object.assign(document.createElement(name), properties);
	made.textContent = text;
	return made;
}

export function dot({ hue }) {
	const made = element("i", "", { className: "dot" });
	made.style.setProperty("--hue", hue);
	return made;
}

// sync makes a parent's children those of the items, and keeps those that are there.
export function sync(parent, items, key, make) {
	const kept = new Map([...parent.children].map(child => [child.dataset.key, child]));
	parent.replaceChildren(...items.map(item => {
		const id = String(key(item)), child = kept.get(id) ?? make(item);
		child.dataset.key = id;
		return child;
	}));
}
