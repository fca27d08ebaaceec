// Joining a VPS from the first page, and what the VPS says afterwards.
import test from 'node:test';
import assert from 'node:assert/strict';
import { load } from './load.mjs';
import { schema } from './program.mjs';

// Elements as plain objects; E([ … ]) has children only, also those that follow.
const E = (tag, attributes, children) => {
	if (Array.isArray(tag))
		return { children: [ ...tag, ...attributes ?? [] ] };

	return Array.isArray(attributes) || typeof(attributes) == 'string'
		? { tag, attributes: {}, children: [ attributes ].flat() }
		: { tag, attributes: attributes ?? {}, children: [ children ?? [] ].flat(), value: attributes?.value };
};
const dom = { content(node, children) { node.children = [ children ].flat(); return node; } };
const all = (node) => (node?.children ? [ node, ...node.children.flatMap(all) ] : []);
const text = (node) => (node?.children ? node.children.map(text).join('') : String(node ?? ''));
const button = (node, label) => all(node).find((one) => one.tag == 'button' && text(one) == label);

const invited = {
	version: 1, relay: 'home', hosts: [ '2001:db8:1::2', '198.51.100.144' ], fingerprint: 'SHA256:abc',
	transport: 'wireguard', ipaddr: '198.51.100.144', expires: 1
};

// The first page, with a program that answers so.
async function firstPage(answers, mayWrite = true) {
	const calls = [], added = [], set = [];
	let maps = 0, polls = 0;
	const rpc = {
		declare: ({ method, params }) => async (...args) => {
			calls.push([ method, ...args ]);
			assert.equal(args.length, (params ?? []).length, method);

			return answers[method] ?? { schema, check: { errors: [], warnings: [] }, dump: [] }[method] ?? {};
		}
	};
	class Option {
		static extend() { return class extends this {}; }
		constructor(section, option) { Object.assign(this, { section, option }); }
		value() {}
		depends() {}
	}
	const form = {};

	for (const name of [ 'Value', 'ListValue', 'Flag', 'DynamicList', 'MultiValue', 'DummyValue' ])
		form[name] = class extends Option {};

	form.NamedSection = class {};
	form.GridSection = class {};
	form.Map = class {
		constructor() { this.children = []; }
		section(type, sid, sectiontype) {
			const s = {
				sectiontype, children: [], option(kind, ...args) {
					const o = new kind(s, ...args);

					s.children.push(o);

					return o;
				}
			};

			this.children.push(s);

			return s;
		}
		async parse() {}
		async render() { maps++; return E('div', {}, [ 'the form' ]); }
	};

	const uci = {
		load: async () => calls.push([ 'uci.load' ]), unload: () => calls.push([ 'uci.unload' ]),
		add: (config, type, name) => { added.push(name); return name; }, set: (...args) => set.push(args),
		unset() {}, get: (config, sid, option) => (option == 'src_dport' ? '443' : null), sections: () => []
	};
	const view = load('view.ds4relay.settings', {
		form, uci, rpc, dom, poll: { add: () => polls++ }, 'tools.widgets': { NetworkSelect: class {} },
		ui: { createHandlerFn: (self, act) => () => act.call(self) }
	}, {
		E, document: { querySelector: () => true, addEventListener() {} },
		L: {
			resolveDefault: (promise) => promise, toArray: (v) => (v == null ? [] : [].concat(v)),
			sortedKeys: Object.keys, hasViewPermission: () => mayWrite
		}
	});

	await view.load();

	return { view, page: await view.render(), calls, added, set, maps: () => maps, polls: () => polls };
}

test('one field comes first, and nothing happens before the VPS was shown', async () => {
	const { view, page, calls, added, set, maps } = await firstPage({ invitation: invited, join: invited });
	const press = (label) => button(page, label).attributes.click();

	assert.equal(all(page).filter((one) => [ 'input', 'textarea', 'select' ].includes(one.tag)).length, 1);
	assert.deepEqual(view.addFooter().children, [], 'there is nothing to save yet');
	assert.ok(!button(page, 'Join this VPS'));

	all(page).find((one) => one.tag == 'textarea').value = ' ds4relay1.\nabc ';
	await press('Continue');

	for (const shown of [ '2001:db8:1::2, 198.51.100.144', 'SHA256:abc', 'WireGuard, encrypted' ])
		assert.ok(text(page).includes(shown), shown);

	assert.ok(!calls.some(([ method ]) => method == 'join'));
	assert.deepEqual([ added, set ], [ [], [] ]);

	await press('Cancel');
	assert.ok(!text(page).includes('SHA256:abc'));
	await press('Continue');

	view.addFooter = () => E('div', {}, [ 'Save & Apply' ]);
	await press('Join this VPS');

	const methods = calls.map(([ method ]) => method);

	assert.deepEqual(calls.find(([ method ]) => method == 'join'), [ 'join', ' ds4relay1.\nabc ' ]);
	assert.ok(methods.indexOf('uci.unload') > methods.indexOf('join'));
	assert.equal(methods.at(-1), 'uci.load', 'the configuration is read again');
	assert.equal(maps(), 1);
	assert.match(text(page), /the form.*Save & Apply/);
	assert.deepEqual(view.map.children.map((section) => section.children.map((option) => option.option)),
		[ [ 'dest_ip', 'src_dport', 'proto' ] ]);
	assert.deepEqual(added, [ 'server' ]);
});

test('a refusal is shown at the field, and the page stays', async () => {
	const error = {
		error: 'this is no invitation; one begins with ds4relay1.', code: 'this is no invitation; one begins with %s',
		args: [ 'ds4relay1.' ]
	};
	const { page, maps } = await firstPage({ invitation: error });

	await button(page, 'Continue').attributes.click();
	assert.match(text(page), /this is no invitation; one begins with ds4relay1\./);
	assert.ok(!button(page, 'Join this VPS'));
	assert.equal(maps(), 0);

	const joined = await firstPage({ invitation: invited, join: { error: 'no', code: 'no' } });

	await button(joined.page, 'Continue').attributes.click();
	await button(joined.page, 'Join this VPS').attributes.click();
	assert.equal(text(all(joined.page).find((one) => one.attributes?.id == 'ds4-invitation-error')), 'no');
	assert.equal(joined.maps(), 0);
});

test('without an invitation the form asks for everything', async () => {
	const { view, page } = await firstPage({});

	view.addFooter = () => E('div', {}, [ 'Save & Apply' ]);
	await button(page, 'I have no invitation').attributes.click();
	assert.deepEqual(view.map.children.map((section) => section.sectiontype), [ 'relay', 'forward' ]);
	assert.match(text(page), /the form.*Everything else.*Save & Apply/);
});

test('who may only read cannot join', async () => {
	const { page } = await firstPage({ invitation: invited }, false);

	assert.ok(button(page, 'Continue').attributes.disabled);
	assert.ok(!button(page, 'I have no invitation').attributes.disabled);
});

// The page of the VPS, with a relay of which the program says this.
async function otherEnd(status) {
	const answers = { schema, status, export: { config: 'the file' } };
	const view = load('view.ds4relay.vps', {
		uci: {
			load: async () => {}, get: () => null,
			sections: (name, type) => (type == 'relay' ? [ { '.name': 'home', ipaddr: '203.0.113.7' } ] : [])
		},
		rpc: { declare: ({ method }) => async () => answers[method] }, ui: {}, form: {}, dom,
		'ds4relay.fields': {}
	}, {
		E: (...args) => Object.assign(E(...args), { addEventListener() {} }), document: { querySelector: () => true },
		L: { resolveDefault: (promise) => promise, toArray: (v) => [ v ?? [] ].flat(), url: (path) => path }
	});

	return view.render(await view.load());
}

test('the VPS of a relay that is paired gets no file, whatever was pushed since the last restart', async () => {
	const relay = (more) => ({ relays: [ { name: 'home', ...more } ] });

	assert.match(text(await otherEnd(relay())), /Copy all.*the file/s);
	assert.match(text(await otherEnd(relay({ push: { state: 'ok' } }))), /the file/, 'a push of a former pairing');

	const paired = text(await otherEnd(relay({ joined: true })));

	assert.match(paired, /The VPS is paired with this router/);
	assert.doesNotMatch(paired, /the file/);

	const unknown = text(await otherEnd({ error: 'no kernel' }));

	assert.match(unknown, /No kernel/);
	assert.doesNotMatch(unknown, /the file|Copy all/);
});

const push = load('ds4relay.push', {}, { E });
const told = (state, more) => push.render([ { name: 'home', push: { version: 1, state, ...more } } ]);

test('the answer to a push names the field', () => {
	const [ refused ] = told('refused', {
		text: 'x', problems: [ {
			section: 'forward "web"', option: 'src_dport', value: '22', message: 'no', code: 'the VPS keeps %s',
			args: [ 'tcp:22' ]
		} ]
	});

	assert.match(text(refused), /Relay home: the VPS does not take this/);
	assert.match(text(refused), /Forward web, External port "22": the VPS keeps tcp:22/);
	assert.match(refused.attributes.class, /error/);
});

test('a push that failed says why, one that goes on says so, one that is done says nothing', () => {
	assert.match(text(told('failed', { text: 'no', code: 'the answer is %s', args: [ '<b>' ] })[0]),
		/could not be told.*the answer is <b>.*again each minute/is);
	assert.match(text(told('failed', { text: 'English of an older program' })[0]), /English of an older program/);
	assert.match(text(told('pending')[0]), /is being told/);
	assert.deepEqual(told('ok'), []);
	assert.deepEqual(push.render([ { name: 'home' } ]), []);
	assert.equal(push.key([ { name: 'home' } ]), push.key([ { name: 'home', push: { state: 'ok' } } ]));
});
