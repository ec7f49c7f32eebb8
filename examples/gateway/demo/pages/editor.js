// The editor. The server orders all edits of the file, and drops those that were not made on its newest version. So what
// was typed here and is not yet ordered is made anew on top of each edit that came first; and the file as the server has
// it ("base") is the same in all tabs, whatever the delays.
//
// An edit is a list of operations, each made on the text that the one before has left: {at, del: length} or {at, ins: text}.

import { connect, tab, element, dot, sync } from "./gateway.js";

const $ = id => document.getElementById(id);
const text = $("text");

let base = "", version = -1;   // the file as the server last said
let sent = null, unsent = [];  // our edits since: on its way (or none is), and to follow
let shown = "";                // what both make of base: the textarea's value before the next input
let people = [];               // with their carets, as offsets in base
let open = false;
let composing = false, inbox = []; // what came while a character was being composed

const send = connect(receive, () => { open = false; });

// apply returns a text after an edit.
const apply = (old, edit) => edit.reduce((t, op) => t.slice(0, op.at) + (op.ins ?? "") + t.slice(op.at + (op.del ?? 0)), old);

// diff returns the edit that leads from a text to another. What it inserts or deletes ends, if it can, at the caret.
function diff(from, to, caret = 0) {
	const most = Math.min(from.length, to.length);
	let end = 0, at = 0;
	while (end < Math.min(most, to.length - caret) && from[from.length - 1 - end] === to[to.length - 1 - end]) end++;
	while (at < most - end && from[at] === to[at]) at++;
	// Not through the middle of a character of two units.
	if (at > 0 && /[\ud800-\udbff]/.test(from[at - 1])) at--;
	if (end > 0 && /[\udc00-\udfff]/.test(from[from.length - end])) end--;
	const edit = [], del = from.length - end - at, ins = to.slice(at, to.length - end);
	if (del) edit.push({ at, del });
	if (ins) edit.push({ at, ins });
	return edit;
}

// cross returns two operations that were made on the same text as they are after each other: a after b, b after a. Of
// two insertions at one place b's comes first.
function cross(a, b) {
	if (a.ins && b.ins) {
		return b.at <= a.at ? [[{ ...a, at: a.at + b.ins.length }], [b]] : [[a], [{ ...b, at: b.at + a.ins.length }]];
	}
	if (a.del && b.del) {
		const common = Math.max(Math.min(a.at + a.del, b.at + b.del) - Math.max(a.at, b.at), 0);
		const rest = (x, y) => {
			const before = Math.max(Math.min(x.at, y.at + y.del) - y.at, 0); // what y deletes in front of x
			return x.del > common ? [{ at: x.at - before, del: x.del - common }] : [];
		};
		return [rest(a, b), rest(b, a)];
	}
	if (a.ins) return cross(b, a).reverse();
	// a deletes, b inserts: in front, behind, or in the middle, and then it is spared.
	const inside = b.at - a.at;
	if (inside <= 0) return [[{ ...a, at: a.at + b.ins.length }], [b]];
	if (inside >= a.del) return [[a], [{ ...b, at: b.at - a.del }]];
	return [[{ at: a.at, del: inside }, { at: a.at + b.ins.length, del: a.del - inside }], [{ ...b, at: a.at }]];
}

// rebase does for two edits what cross does for two operations.
function rebase(a, b) {
	if (!a.length || !b.length) return [a, b];
	if (a.length > 1) {
		const [first, past] = rebase(a.slice(0, 1), b);
		const [others, last] = rebase(a.slice(1), past);
		return [first.concat(others), last];
	}
	const [mine, first] = cross(a[0], b[0]);
	const [last, others] = rebase(mine, b.slice(1));
	return [last, first.concat(others)];
}

// moved returns where an offset is after an edit.
const moved = (at, edit) => edit.reduce((at, op) => {
	if (at <= op.at) return at;
	return op.ins ? at + op.ins.length : Math.max(at - op.del, op.at);
}, at);

function receive(message) {
	if (composing) {
		inbox.push(message);
		return;
	}
	switch (message.type) {
	case "hello":
		sessionStorage.setItem("name", message.name);
		if (sent && apply(base, sent) === message.text) order(); // it got there, only the answer did not
		merge(diff(base, message.text)); // whatever we missed
		version = message.version;
		people = message.people;
		open = true;
		text.disabled = false;
		break;
	case "edit":
		for (const person of people) person.caret = moved(person.caret, message.splices);
		place(message.tab, message.splices.at(-1).at + (message.splices.at(-1).ins ?? "").length);
		if (message.tab === tab) order();
		else merge(message.splices);
		version = message.version;
		break;
	case "people":
		people = message.people;
		break;
	case "caret":
		place(message.tab, message.caret);
		break;
	}
	flush();
	draw();
}

// place notes where somebody's caret went, and when.
function place(tab, caret) {
	for (const person of people) if (person.tab === tab) Object.assign(person, { caret, at: Date.now() });
}

// order makes what is on its way a part of base.
function order() {
	base = apply(base, sent);
	sent = null;
}

// merge makes somebody else's edit a part of base, below what was typed here. If something is on its way the server
// drops it, since this one came first.
function merge(theirs) {
	const [mine, change] = rebase([...sent ?? [], ...unsent], theirs);
	base = apply(base, theirs);
	sent = null;
	unsent = mine;
	for (const { at, del = 0, ins = "" } of change) text.setRangeText(ins, at, at + del, "preserve");
	shown = text.value;
}

// flush notes what was typed, and sends it if nothing is on its way.
let caret = -1;
function flush() {
	if (composing) return;
	if (!text.value.isWellFormed()) text.value = text.value.toWellFormed(); // no half characters
	for (const op of diff(shown, text.value, text.selectionEnd)) {
		const last = unsent.at(-1);
		if (last?.ins && op.ins && op.at === last.at + last.ins.length) last.ins += op.ins;
		else unsent.push(op);
	}
	shown = text.value;
	if (!open || sent) return;
	if (unsent.length) {
		[sent, unsent] = [unsent, []];
		caret = -1;
		send({ type: "edit", version, splices: sent });
	} else if (caret !== text.selectionEnd && document.activeElement === text) {
		caret = text.selectionEnd;
		send({ type: "caret", version, caret });
	}
}

text.addEventListener("input", () => { flush(); draw(); });
document.addEventListener("selectionchange", flush);
text.addEventListener("selectionchange", flush);
text.addEventListener("compositionstart", () => { composing = true; });
text.addEventListener("compositionend", () => {
	composing = false;
	flush();
	for (const message of inbox.splice(0)) receive(message);
});

// A tab key indents; with Escape before it, it leaves the editor as it does everywhere.
let leaving = false;
text.addEventListener("keydown", event => {
	if (event.key === "Tab" && !leaving && !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey) {
		event.preventDefault();
		text.setRangeText("\t", text.selectionStart, text.selectionEnd, "end");
		flush();
		draw();
	}
	leaving = event.key === "Escape";
});

// Below the textarea, whose own text is transparent, lies the same text in colours and with the others' carets.
const tokens = /(?<comment>\/\/.*)|(?<string>"(?:[^"\\\n]|\\.)*"?|`[^`]*`?)|(?<keyword>\b(?:break|case|chan|const|continue|default|defer|else|for|func|go|if|import|interface|map|nil|package|range|return|select|struct|switch|true|false|type|var)\b)|(?<number>\b\d[\w.]*)/g;

function draw() {
	const value = text.value, ink = $("ink");
	const mine = [...sent ?? [], ...unsent];
	const carets = people.filter(person => person.tab !== tab)
		.map(person => ({ ...person, caret: Math.min(moved(person.caret, mine), value.length) }))
		.sort((a, b) => a.caret - b.caret);
	const parts = [];
	let done = 0;
	const write = (end, kind) => {
		while (carets.length && carets[0].caret <= end) {
			const { caret, name, hue, at = 0 } = carets.shift();
			put(caret, kind);
			const made = element("span", "", { className: "caret" });
			made.style.setProperty("--hue", hue);
			made.style.setProperty("--since", `${Math.max(at - Date.now(), -60_000)}ms`); // the name fades
			made.dataset.name = name;
			parts.push(made);
		}
		put(end, kind);
	};
	const put = (end, kind) => {
		if (end > done) parts.push(kind ? element("span", value.slice(done, end), { className: kind }) : value.slice(done, end));
		done = Math.max(done, end);
	};
	for (const match of value.matchAll(tokens)) {
		write(match.index, "");
		write(match.index + match[0].length, Object.keys(match.groups).find(kind => match.groups[kind]));
	}
	write(value.length, "");
	ink.replaceChildren(...parts, "\n");
	const lines = value.split("\n").length;
	if ($("gutter").childElementCount !== lines) {
		$("gutter").replaceChildren(...Array.from({ length: lines }, (_, i) => element("span", i + 1)));
	}
	scroll();
	$("version").textContent = `version ${version}`;
	sync($("people"), people, person => `${person.tab} ${person.name}`, person => {
		const item = element("li", "", { title: person.tab === tab ? `${person.name} (you)` : person.name });
		item.append(dot(person), element("span", person.tab === tab ? `${person.name} (you)` : person.name));
		return item;
	});
}

function scroll() {
	$("ink").style.translate = `${-text.scrollLeft}px ${-text.scrollTop}px`;
	$("gutter").style.translate = `0 ${-text.scrollTop}px`;
}
text.addEventListener("scroll", scroll);
