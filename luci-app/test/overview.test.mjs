// The overview is drawn again with each look at the state, under the hands of whoever uses it.
import test from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { load } from './load.mjs';

const fixture = JSON.parse(readFileSync(new URL('fixtures/running.json', import.meta.url)));
const page = { focused: null, held: null };

class Element {
	constructor(tag, attributes, children) {
		Object.assign(this, { tag, attributes, children });
	}

	get all() { return [ this, ...this.children.flatMap((child) => child?.all ?? []) ]; }
	get textContent() { return this.children.map((child) => child?.textContent ?? String(child ?? '')).join(''); }
	contains(node) { return this.all.includes(node); }
	matches(selector) { assert.equal(selector, ':active'); return this.contains(page.held); }
	querySelectorAll(selector) { return this.all.slice(1).filter(({ tag }) => selector.split(', ').includes(tag)); }
	setAttribute(name, value) { this.attributes[name] = value; }
	focus() { page.focused = this; }
}

const E = (tag, attributes, children) => {
	if (Array.isArray(tag))
		return new Element('', {}, [ tag, attributes ?? [] ].flat());

	return Array.isArray(attributes) || typeof(attributes) == 'string'
		? new Element(tag, {}, [ attributes ].flat())
		: new Element(tag, attributes ?? {}, [ children ?? [] ].flat());
};
const dom = {
	content(node, children) {
		if (node.contains(page.focused))
			page.focused = null; // as in a browser

		node.children = [ children ].flat();
	}
};
const globals = { E, document: { querySelector: () => true, get activeElement() { return page.focused; } } };

// The overview of a router that answers so; `show` is the next look at it.
async function overview(status) {
	const answers = { status, service: { started: true, enabled: true } };
	let look;
	const view = load('view.ds4relay.overview', {
		dom, poll: { add: (act) => { look = act; } }, 'ds4relay.path': { render: () => '' },
		'ds4relay.graph': { render: () => '' }, 'ds4relay.config': { isFresh: () => false, forwardNames: () => [] },
		rpc: { declare: ({ method }) => async () => answers[method] ?? {} },
		ui: {
			createHandlerFn: () => null,
			Table: class {
				update(rows) { this.rows = rows; }
				render() { return E('table', this.rows.flat()); }
			}
		},
		uci: {
			load: async () => {}, get: () => null,
			sections: (name, type) => (type == 'relay' ? [ { '.name': 'home', ipaddr: '203.0.113.7' } ] : [])
		}
	}, {
		...globals,
		window: {
			matchMedia: () => ({ matches: false, addEventListener() {} }), localStorage: { getItem: () => null },
			sessionStorage: { getItem: () => null, setItem() {} }
		},
		L: {
			resolveDefault: (promise, other) => promise.catch(() => other), toArray: (v) => [ v ?? [] ].flat(),
			url: (path) => path, hasViewPermission: () => true
		}
	});

	await view.load();

	const node = view.render();

	return {
		node, pressed: () => node.querySelectorAll('a, button'),
		show: (next) => { answers.status = next; return look(); }
	};
}

const running = (more) => {
	const status = structuredClone(fixture);

	Object.assign(status.relays[0], more);

	return status;
};

test('what can be pressed stays the same element while numbers change', async () => {
	const { node, pressed, show } = await overview(running());
	const before = pressed();

	assert.deepEqual(before.map((one) => one.textContent),
		[ 'Switch off', 'Interfaces', 'Restart', 'Stop', 'Do not start at boot', 'System Log' ]);
	before[0].focus();

	const next = running();

	next.relays[0].forwards[0].flows.open = 4711;
	await show(next);
	assert.match(node.textContent, /4711/);
	assert.ok(pressed().every((one, i) => one === before[i]) && pressed().length == before.length);
	assert.equal(page.focused, before[0]);

	await show(running({ enabled: false }));
	assert.equal(pressed().find((one) => one.textContent.startsWith('Switch')).textContent, 'Switch on');

	// Another relay, and none.
	await show({ ...next, relays: [ ...next.relays, { ...next.relays[0], name: 'cabin' } ] });
	assert.match(node.textContent, /Relay home.*Relay cabin/s);
	await show({ ...next, relays: [] });
	assert.doesNotMatch(node.textContent, /Relay home/);
});

test('a message that changes keeps the focus, and waits while a button is held down', async () => {
	const silent = (seconds) => running({ other_end: 'silent', heard_s: seconds });
	const { node, pressed, show } = await overview(silent(95));
	const why = () => pressed().find((one) => one.textContent == 'Find out why');

	why().focus();
	await show(silent(100));
	assert.match(node.textContent, /100 s ago/);
	assert.equal(page.focused, why());

	page.held = why();
	await show(silent(105));
	assert.equal(page.held, why(), 'the press is lost');
	page.held = null;
	await show(silent(110));
	assert.match(node.textContent, /110 s ago/);
});
