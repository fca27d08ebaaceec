// The form has the options that the program has: names, lists, defaults, and what is required.
import test from 'node:test';
import assert from 'node:assert/strict';
import { load } from './load.mjs';
import { schema } from './program.mjs';

// A stand-in for LuCI's form: it only remembers what is added to it.
class Option {
	static extend() { return class extends this {}; }
	constructor(section, name, title, description) {
		Object.assign(this, { section, option: name, title, description, disabled: '0', enabled: '1' });
	}
	value(key) { (this.keys ??= []).push(key); }
	depends() {}
}

class Section {
	constructor(type) { Object.assign(this, { sectiontype: type, children: [], tabs: [] }); }
	tab(name) { this.tabs.push(name); }
	option(type, ...args) {
		const o = Object.assign(new type(this, ...args), { type });

		this.children.push(o);

		return o;
	}
	taboption(tab, ...args) { assert.ok(this.tabs.includes(tab)); return Object.assign(this.option(...args), { tab }); }
}

const form = {};

for (const name of [ 'Value', 'ListValue', 'Flag', 'DynamicList', 'MultiValue', 'DummyValue' ])
	form[name] = class extends Option {};

form.GridSection = class extends Section {};
form.NamedSection = class extends Section {};
form.Map = class {
	constructor() { this.children = []; }
	section(type, ...args) {
		const s = new type(type === form.NamedSection ? args[1] : args[0]);

		this.children.push(s);

		return s;
	}
	parse() {}
};

// What the page builds for these sections, after its own load().
async function formOf(sections, build, modules) {
	let answered = 0;
	const rpc = {
		declare: ({ method }) => async () => {
			answered++;

			return { schema, check: { errors: [], warnings: [] }, dump: [] }[method] ?? {};
		}
	};
	const NetworkSelect = class extends Option {};
	const values = Object.fromEntries(sections.map((section) => [ section['.name'], section ]));
	const uci = {
		load: async () => {}, add: (config, type, name) => name, set() {}, unset() {},
		get: (config, sid, option) => (option ? values[sid]?.[option] : values[sid]),
		sections: (config, type) => sections.filter((section) => !type || section['.type'] == type)
	};
	const view = load('view.ds4relay.settings', {
		form, uci, rpc, ui: {}, dom: {}, poll: {}, 'tools.widgets': { NetworkSelect }
	}, {
		L: {
			resolveDefault: (promise) => promise, toArray: (v) => (v == null ? [] : [].concat(v)),
			sortedKeys: Object.keys
		}
	}, modules);

	await view.load();
	assert.ok(answered > 0);

	const map = view[build]();

	return Object.fromEntries(map.children.map((section) => [
		section.sectiontype, section.children.filter((option) => !option.option.startsWith('_'))
	]));
}

const complete = [
	{ '.name': 'home', '.type': 'relay', ipaddr: '192.0.2.1', peeraddr: '2001:db8::1' },
	{ '.name': 'web', '.type': 'forward', '.anonymous': false, dest_ip: '192.168.1.210' }
];

// What stands on a VPS only is no business of a router's page.
const shown = schema.sections.filter((section) => section.type != 'proxy');

test('the form has every option of the schema, and no other', async () => {
	const sections = await formOf(complete, 'allSettings');

	assert.deepEqual(Object.keys(sections).sort(), shown.map((section) => section.type).sort());

	for (const section of shown)
		assert.deepEqual(sections[section.type].map((option) => option.option).sort(),
			section.options.map((spec) => spec.name).sort());
});

test('lists are lists, switches are switches, and the default is shown', async () => {
	const sections = await formOf(complete, 'allSettings');

	for (const section of shown)
		for (const spec of section.options) {
			const option = sections[section.type].find((one) => one.option == spec.name);
			const isWords = option instanceof form.Value && option.type != form.Value; // a list in one line
			const isList = option instanceof form.DynamicList || option instanceof form.MultiValue || isWords ||
				spec.name == 'relay'; // each choice is a list

			assert.equal(isList, !!spec.list, `${section.type}.${spec.name}: list`);
			assert.equal(option.spec.allowed, spec.allowed);

			if (option instanceof form.Flag)
				assert.equal(option.default, spec.default);
			else if (option instanceof form.MultiValue)
				assert.equal(option.default, spec.default);
			else if (spec.default && option.placeholder != spec.default)
				assert.match(`${option.placeholder} ${option.description}`,
					/default|replies|Answers|everybody|203\.0\.113/i, `${section.type}.${spec.name} hides its default`);

			if (spec.required)
				assert.ok(option.spec.needed, `${section.type}.${spec.name} is required`);
		}
});

test('the backup of a relay is another relay of a router, or what the file has', async () => {
	const { relay: options } = await formOf([
		{ '.name': 'home', '.type': 'relay', backup: 'second' }, { '.name': 'second', '.type': 'relay' },
		{ '.name': 'third', '.type': 'relay', backup: 'gone' }, { '.name': 'cabin', '.type': 'relay', role: 'vps' }
	], 'allSettings');
	const backup = options.find((option) => option.option == 'backup');

	for (const [ sid, given, choices ] of [
		[ 'home', 'second', [ 'third', 'second' ] ], [ 'second', null, [ 'home', 'third' ] ],
		[ 'third', 'gone', [ 'home', 'second', 'gone' ] ]
	]) {
		backup.keys = []; // as form.ListValue's keylist
		assert.equal(backup.load(sid), given, sid);
		assert.deepEqual(backup.keys, choices, sid);
	}
});

test('the first visit asks for four values and two choices, and has what is required among them', async () => {
	const sections = await formOf([], 'firstVisit');
	const asked = Object.values(sections).flat().map((option) => option.option);

	assert.deepEqual(asked, [ 'ipaddr', 'peeraddr', 'transport', 'public_key', 'dest_ip', 'src_dport', 'proto' ]);

	for (const section of shown)
		for (const spec of section.options.filter((one) => one.required))
			assert.ok(asked.includes(spec.name), `${spec.name} is required, and not asked for`);

	for (const option of Object.values(sections).flat())
		assert.ok(option.spec.needed || option.spec.default || option.default, option.option);
});

test('the pages speak of their fields, not of options', () => {
	const labels = load('ds4relay.labels');

	for (const [ type, said, wanted ] of [
		[ 'relay', 'option ipaddr is missing', '“Public IPv4 address” is missing' ],
		[ 'relay', 'die Option ipaddr fehlt', '“Public IPv4 address” fehlt' ],
		[ 'forward', 'has 2 ports, src_dport has 1', 'has 2 ports, “External port” has 1' ],
		[ 'forward', "is also kept for the VPS (list keep 'tcp:22' of relay home)",
			"is also kept for the VPS (“Stays with the VPS” 'tcp:22' of relay home)" ],
		[ 'relay', 'a name of its own for the tunnel device', 'a name of its own for the tunnel device' ],
		[
			undefined, 'correct option dest_ip, or look at `ip route get dest_ip`',
			'correct “Internal host”, or look at `ip route get dest_ip`'
		],
		[ undefined, 'relay "egress" waits', 'relay "egress" waits' ],
		[ undefined, 'the option name "a-b" has a character', 'the option name "a-b" has a character' ]
	])
		assert.equal(labels.speak(said, type), wanted);

	for (const section of shown)
		for (const { name } of section.options)
			assert.notEqual(labels.of(section.type, name), name);
});

test('a forward is called by what usually listens on its port', () => {
	const services = load('ds4relay.services');

	for (const [ ports, name ] of [
		[ '443', 'Web server' ], [ '25565', 'Minecraft' ], [ '8123', 'Home Assistant' ], [ '25', 'Mail server' ],
		[ '4711', 'Port 4711' ], [ '8000-8010', 'Port 8000-8010' ], [ 'constructor', 'Port constructor' ]
	])
		assert.equal(services.name(ports), name);
});
