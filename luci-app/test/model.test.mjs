// What the pages make of the program's answers.
import test from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { load } from './load.mjs';
import { call } from './program.mjs';

const model = load('ds4relay.model');
const words = load('ds4relay.words');
const fixtures = new URL('fixtures/', import.meta.url);
const status = (name) => JSON.parse(readFileSync(new URL(name + '.json', fixtures)));
const service = { started: true, enabled: true };
const summary = (state) => model.summary({ service, fresh: false, error: null, ...state });

/* A router that has no key for WireGuard. */
const keyMissing = {
	code: 'relay %q: %v', args: [ 'home', {
		code: 'there is no file %s with the private key; make one: ds4relay genkey %s',
		args: [ '/etc/ds4relay/keys/home', 'home' ]
	} ]
};
const noKey = { blocked: [ 'relay "home": there is no file' ], codes: { blocked: [ keyMissing ] } };

test('each state has its sentence and the button that mends it', () => {
	const running = status('running');
	const with_ = (change) => change(structuredClone(running)) ;

	for (const [ state, kind, action ] of [
		[ { status: running }, 'success', undefined ],
		[ { status: running, fresh: true }, 'notice', 'settings' ],
		[ { status: running, error: {
			message: 'FILE:1: unknown word',
			problems: [ { file: 'FILE', line: 1, message: 'unknown word', code: 'unknown word' } ]
		} }, 'error', 'settings' ],
		[ { status: running, error: new Error('RPC call failed') }, 'error', 'diagnose' ],
		[ { status: { relays: [], differs: [] } }, 'warning', 'switch' ],
		[ { status: running, service: { started: false, enabled: true } }, 'warning', 'start' ],
		[ { status: running, service: { started: true, enabled: false } }, 'warning', 'enable' ],
		[ { status: with_((s) => ({ ...s, differs: [ 'ip link set dev ds4-home up' ] })) }, 'warning', 'reload' ],
		[ {
			status: with_((s) => {
				s.relays[0].up = false;

				return { ...s, differs: [ 'ip link add name ds4-home' ] };
			})
		}, 'warning', 'diagnose' ],
		[ {
			status: with_((s) => ({ ...s, blocked: [ 'relay "home" waits for a delegated prefix' ] }))
		}, 'error', 'diagnose' ],
		[ { status: with_((s) => { s.relays[0].up = false; return { ...s, ...noKey }; }) }, 'warning', 'key home' ],
		[ { status: with_((s) => ({ ...s, ...noKey })) }, 'error', 'diagnose' ], // it runs with the key that it had
		[ { status: status('broken') }, 'warning', 'diagnose' ],
		[ { status: with_((s) => ({ ...s, notes: [ 'a note' ] })) }, 'warning', 'diagnose' ],
		[ { status: with_((s) => { s.relays[0].other_end = 'silent'; return s; }) }, 'error', 'diagnose' ],
		[ {
			status: with_((s) => {
				Object.assign(s.relays[0], { other_end: 'silent', served: false });
				delete s.relays[0].heard_s;

				return s;
			})
		}, 'error', 'vps' ],
		[ { status: with_((s) => { s.relays[0].other_end = 'unknown'; return s; }) }, 'warning', 'diagnose' ],
		[ { status: with_((s) => { s.relays[0].heard_s = 151; return s; }) }, 'warning', 'diagnose' ],
		[ { status: with_((s) => { delete s.relays[0].other_end; return s; }) }, 'warning', 'diagnose' ],
		[ {
			status: with_((s) => { s.relays.push({ ...s.relays[0], name: 'x', other_end: 'silent' }); return s; })
		}, 'error', 'diagnose' ],
		[ { status: with_((s) => { s.relays[0].forwards[1].host = 'missing'; return s; }) }, 'warning', 'diagnose' ],
		[ { status: with_((s) => { s.relays[0].forwards[1].host = 'unknown'; return s; }) }, 'success', undefined ],
		[ { status: with_((s) => { s.relays[0].forwards.forEach((f) => { f.host = 'missing'; }); return s; }) }, 'error', 'diagnose' ],
		[ {
			status: with_((s) => {
				Object.assign(s.relays[0], { other_end: 'silent', served: true });
				delete s.relays[0].heard_s;

				return s;
			})
		}, 'error', 'diagnose' ],
		[ { status: with_((s) => { s.relays[0].enabled = false; return s; }) }, 'warning', 'switch' ]
	]) {
		const said = summary(state);

		assert.equal(said.kind, kind, said.title);
		assert.equal(said.action, action, said.title);
		assert.ok(said.title && said.text);
	}
});

test('three steps lead to a relay that works', () => {
	const running = status('running');
	const state = (change, more) => {
		const now = structuredClone(running);

		change(now.relays[0], now);

		return { status: now, service, fresh: false, error: null, ...more };
	};
	const nothing = (relay) => relay;
	const unheard = (relay) => { Object.assign(relay, { other_end: 'silent' }); delete relay.heard_s; };

	for (const [ what, given, step, ...actions ] of [
		[ 'stopped', state(nothing, { service: { started: false, enabled: true } }), 0, 'start' ],
		[ 'not as the file says', state((r, s) => { s.differs = [ 'ip link set dev ds4-home up' ]; }), 0, 'reload' ],
		[ 'down', state((r) => { r.up = false; delete r.other_end; }), 0, 'start', 'diagnose' ],
		[ 'did not come up', state((r, s) => { r.up = false; s.differs = [ 'ip link add' ]; }), 0, 'reload', 'diagnose' ],
		[ 'waits', { status: status('broken'), service, fresh: false, error: null }, 0, 'diagnose' ],
		[ 'without a key', state((r, s) => { r.up = false; Object.assign(s, noKey); }), 0, 'key home' ],
		[ 'another relay waits', state((r, s) => { s.blocked = [ 'relay "x" waits' ]; }), 2, 'diagnose', 'confirm' ],
		[ 'never heard', state(unheard), 1, 'vps', 'diagnose' ],
		[ 'never heard, paired', state((r) => { unheard(r); r.joined = true; }), 1, 'diagnose' ],
		[ 'never heard of a router', state((r) => { unheard(r); r.role = 'vps'; }), 1, 'router', 'diagnose' ],
		[ 'heard, not known now', state((r) => { r.other_end = 'unknown'; }), 2, 'diagnose', 'confirm' ],
		[ 'not started at boot', state(nothing, { service: { started: true, enabled: false } }), 0, 'enable' ],
		[ 'no forward', state((r) => { r.forwards = []; r.other_end = 'unknown'; delete r.heard_s; }), 1, 'settings' ],
		[ 'no forward, but heard', state((r) => { r.forwards = []; }), 2, 'settings' ],
		[ 'heard', state(nothing), 2, 'diagnose', 'confirm' ]
	]) {
		const { summary: said, guides } = model.head(given, () => false);

		assert.equal(said, null, what);
		assert.deepEqual(guides[0].steps.map((one) => one.state),
			[ 0, 1, 2 ].map((i) => (i < step) ? 'done' : (i == step) ? 'current' : 'open'), what);
		assert.deepEqual(guides[0].steps[step].actions, actions, what);
		assert.ok(guides[0].steps[step].texts.every((text) => text), what);
	}

	// An end that has been heard is set up: its silence is a fault.
	const fallen = model.head(state((r) => { r.other_end = 'silent'; }), () => false);

	assert.deepEqual(fallen.guides, []);
	assert.equal(fallen.summary.title, 'The other end is silent');

	assert.deepEqual(model.head(state(nothing), () => true).guides, []);
	assert.equal(model.head(state(nothing), () => true).summary.kind, 'success');
	assert.equal(model.head(state(nothing, { fresh: true }), () => false).summary.action, 'settings');

	// Of two relays each has its own; what is wrong with the one that is in use is said too.
	const two = (change) => state((r, s) => {
		s.relays.push({ ...structuredClone(r), name: 'second' });
		change(r);
	});

	assert.deepEqual(model.head(two(nothing), () => false).guides.map((one) => one.title),
		[ 'Relay home: Setting up: step 3 of 3', 'Relay second: Setting up: step 3 of 3' ]);
	assert.equal(model.head(two(nothing), (r) => r.name == 'home').summary, null, 'not green');
	assert.equal(model.head(two((r) => { r.other_end = 'silent'; }), (r) => r.name == 'home').summary.title,
		'Relay home: The other end is silent');
});

test('a relay is in use if a host answers a client, or has at some time', () => {
	const relay = (served, answered) => ({
		served, forwards: [ { flows: { open: 3, answered } }, { flows: undefined } ]
	});

	assert.ok(model.serves(relay(false, 1)));
	assert.ok(model.serves(relay(true, 0)));
	assert.ok(!model.serves(relay(false, 0)));
	assert.ok(!model.serves({ forwards: [] }));
});

test('who may only read is told what the status knows', () => {
	const relay = status('running').relays[0];
	const findings = (change) => model.observed({ relays: [ { ...relay, ...change } ] })
		.map(({ title, state }) => [ title, state ]);

	assert.deepEqual(findings({}), [ [ 'The other end answers', 'ok' ], [ 'The hosts at home answer', 'ok' ] ]);
	assert.deepEqual(findings({ other_end: 'silent' })[0], [ 'The other end is silent', 'failed' ]);
	assert.deepEqual(findings({ other_end: 'unknown', forwards: [] }),
		[ [ 'It is not known whether the other end answers', 'warning' ] ]);
	assert.deepEqual(findings({ forwards: [ { ...relay.forwards[0], host: 'missing' } ] })[1],
		[ 'The hosts at home answer', 'failed' ]);
	assert.deepEqual(findings({ up: false }), []);
});

test('a check is skipped if one that it needs has failed', () => {
	const failed = new Map([ [ 'home peer', { title: 'peer' } ], [ ' system', { title: 'system' } ] ]);
	const first = (id, relay, ...needs) => model.obstacle({ id, relay, needs }, failed)?.title;

	assert.equal(first('tunnel', 'home', 'routed', 'peer'), 'peer');
	assert.equal(first('mtu', 'home', 'tunnel'), 'peer', 'what failed first');
	assert.equal(first('tunnel', 'second', 'peer'), undefined, 'of another relay');
	assert.equal(first('installed', 'second', 'system'), 'system', 'of the machine');
	assert.equal(model.obstacle({ id: 'tunnel', relay: 'home' }, failed), undefined, 'an older program');
});

test('hosts at home are in networks that lead to no provider', () => {
	const lan = { 'ipv4-address': [ { address: '192.168.1.1', mask: 24 } ], route: [] },
	      guests = { 'ipv4-address': [ { address: '10.9.1.1', mask: 20 } ] },
	      wan = {
			'ipv4-address': [ { address: '100.64.0.7', mask: 10 } ],
			route: [ { target: '0.0.0.0', mask: 0, nexthop: '100.64.0.1' } ]
		};

	for (const [ interfaces, ip, wanted ] of [
		[ [ lan, wan, guests ], '192.168.1.210', true ],
		[ [ lan, wan, guests ], '10.9.15.3', true ],
		[ [ lan, wan, guests ], '192.168.1.1', false ],
		[ [ lan, wan, guests ], '100.64.0.1', false ],
		[ [ lan, wan, guests ], '192.168.2.210', false ],
		[ [ wan ], '192.168.1.210', true ],
		[ [], '192.168.1.210', true ]
	])
		assert.equal(model.homes(interfaces)(ip), wanted, ip);
});

test('texts about the other end’s file have its words, all others the labels of the page', () => {
	const labels = load('ds4relay.labels'),
	      codes = readFileSync(new URL('../luci-app-ds4relay/i18n/messages.js', import.meta.url), 'utf8').split('\n')
		.filter((line) => line.startsWith("_('")).map((line) => line.slice(3, -3).replace(/\\(.)/g, '$1'));

	for (const [ code, args, wanted ] of [
		[
			'on the VPS forward %s has to be in the file, and option keep must not name it: run `ds4relay up` and `ds4relay doctor` there',
			[ 'web' ], /and option `keep` must not/
		],
		[
			'option ip6addr has to lie in the prefix that the provider delegates to this router (`ifstatus wan6`: ipv6-prefix), and peeraddr at the VPS has to be the same',
			[], /^“IPv6 address of this end” has to lie [^]* and `peeraddr` at the VPS/
		],
		[
			'at the VPS run `ds4relay status`: its endpoint has to be %s (else correct option peeraddr here), and it has to be up; then `ds4relay doctor` there',
			[ '2001:db8::1' ], /correct “The other end of the tunnel” here/
		]
	]) {
		assert.ok(codes.includes(code), code);
		assert.match(labels.speak(words.say({ code, args })), wanted);
	}

	// Each text about the other end that has one of these options is of the one kind or the other.
	const here = /^(?:.* is the endpoint of both|both endpoints|give %s an |is also kept|peeraddr %s has the address|relay %q: forward %q would)|option peeraddr here\b/;

	for (const code of codes.filter((one) => /\b(?:peeraddr|keep)\b/.test(one) && /VPS|other end|there\b/.test(one)))
		assert.notEqual(/`(?:peeraddr|keep)`/.test(words.say({ code, args: [] })), here.test(code), code);
});

test('what a client has to do suits the service', () => {
	const services = load('ds4relay.services');
	const port = (first, proto = 'tcp', last = first) => ({ proto, first, last });
	const best = (...mappings) => services.attempt('198.51.100.144',
		services.easiest({ forwards: mappings.map((mapping) => ({ mappings: [ mapping ] })) }).mapping);

	for (const [ mappings, wanted ] of [
		[ [ port(443) ], /`https:\/\/198\.51\.100\.144\/`/ ],
		[ [ port(8080) ], /`http:\/\/198\.51\.100\.144:8080\/`/ ],
		[ [ port(1, 'tcp', 1000) ], /`https:\/\/198\.51\.100\.144\/`/ ],
		[ [ port(25565) ], /connect to `198\.51\.100\.144`, port 25565 \(TCP, Minecraft\)/ ],
		[ [ port(8000, 'tcp', 8100) ], /port 8000 \(TCP\)/ ],
		[ [ port(51820, 'udp'), port(22) ], /port 22 \(TCP, SSH\)/ ],
		[ [ port(51820, 'udp') ], /port 51820 \(UDP, WireGuard\)/ ],
		[ [ { proto: 'all' } ], /a service of your server/ ],
		[ [ { proto: 'icmp' } ], /ping/ ],
		[ [ { proto: 'gre' } ], /by the protocol GRE/ ]
	])
		assert.match(best(...mappings), wanted);

	const limited = { clients: [ '203.0.113.0/24' ], mappings: [ port(443) ] };

	assert.equal(services.easiest({ forwards: [ limited, { mappings: [ port(22) ] } ] }).mapping.first, 22);
	assert.equal(services.easiest({ forwards: [] }), undefined);
});

test('a remedy that is one click has a button', () => {
	const listed = readFileSync(new URL('../luci-app-ds4relay/i18n/messages.js', import.meta.url), 'utf8');

	for (const code in model.remedies) {
		assert.ok(listed.includes("_('" + code.replace(/[\\']/g, '\\$&') + "');"), code);
		assert.equal(model.remedy({ codes: { remedy: { code } } }, { started: true }), model.remedies[code]);
	}

	assert.equal(model.remedy({ codes: { remedy: { code: 'run `ds4relay up`' } } }, { started: false }), 'start');
	assert.equal(model.remedy({ codes: {} }, null), undefined);

	const { code } = keyMissing.args[1];

	assert.ok(listed.includes("_('" + code + "');"), code);
});

test('the parts of the path show where it ends', () => {
	const relay = status('running').relays[0];

	assert.deepEqual(new Set(Object.values(model.parts(relay, true))), new Set([ 'good' ]));
	assert.equal(model.parts(relay, false).client, 'unknown', 'no client has come yet');
	assert.equal(model.parts({ ...relay, up: false }).tunnel, 'bad');
	assert.equal(model.parts({ ...relay, up: false, waiting: 'a delegated prefix' }).router, 'warning');
	assert.equal(model.parts({ ...relay, other_end: 'silent' }).vps, 'bad');
	assert.equal(model.parts({ ...relay, other_end: 'silent' }).client, 'unknown');
	assert.equal(model.parts({ ...relay, other_end: 'silent' }).host, 'good', 'the router knows its hosts');
	assert.equal(model.parts({ ...relay, other_end: 'unknown' }).tunnel, 'warning');
	assert.equal(model.parts({ ...relay, heard_s: 151 }).tunnel, 'warning');
	assert.equal(model.parts({ ...relay, up: false, enabled: false }).tunnel, 'unknown');
});

test('the hosts are good only if all of them answer', () => {
	const of = (...states) => model.parts({
		...status('running').relays[0], forwards: states.map((host) => ({ host, mappings: [], dest_ip: 'x' }))
	}).host;

	assert.equal(of('up', 'up'), 'good');
	assert.equal(of('up', 'missing'), 'warning');
	assert.equal(of('missing', 'missing'), 'bad');
	assert.equal(of('up', 'unknown'), 'unknown');
	assert.equal(of(undefined), 'unknown', 'a VPS does not know');
	assert.equal(of(), 'unknown');
});

test('a forward is put into words', () => {
	const split = (dest_ip, mappings, clients) => model.split({ dest_ip, mappings, clients });

	assert.deepEqual(split('192.168.1.210', [ { proto: 'tcp', first: 443, last: 443, port: 443 } ]),
		{ opens: 'TCP 443', ip: '192.168.1.210', port: '', clients: '' });
	assert.deepEqual(
		split('192.168.1.210', [ 'tcp', 'udp' ].map((proto) => ({ proto, first: 443, last: 443, port: 8443 })),
			[ '203.0.113.7', '198.51.100.0/24' ]),
		{ opens: 'TCP, UDP 443', ip: '192.168.1.210', port: '8443', clients: '203.0.113.7, 198.51.100.0/24' });
	assert.deepEqual(split('192.168.1.23', [ { proto: 'tcp', first: 8000, last: 8010, port: 9000 } ]),
		{ opens: 'TCP 8000-8010', ip: '192.168.1.23', port: '9000-9010', clients: '' });
	assert.equal(split('192.168.1.40', [ { proto: 'gre' } ]).opens, 'GRE');
	assert.equal(split('192.168.1.40', [ { proto: 'all' } ]).opens, 'everything');
});

test('a forward has one name on all pages', () => {
	const config = load('ds4relay.config', { uci: {}, form: {} });
	const tcp = { proto: 'tcp', first: 443, last: 443 };

	for (const [ forward, wanted ] of [
		[ { section: 'web', name: 'Web server', mappings: [ tcp ] }, 'Web server' ],
		[ { section: 'web', mappings: [ tcp ] }, 'web' ],
		[ { section: 'forward[0]', mappings: [ tcp ] }, 'TCP 443' ],
		[ { section: 'forward[0]', mappings: [ { proto: 'all' } ] }, 'everything' ]
	])
		assert.equal(model.name(forward), wanted);

	for (const [ section, wanted ] of [
		[ { name: 'Web server' }, 'Web server' ],
		[ { '.name': 'web' }, 'web' ],
		[ { proto: [ 'tcp' ], src_dport: '443' }, 'TCP 443' ],
		[ { proto: 'TCPUDP', src_dport: '25 465 1024:1030' }, 'TCP, UDP 25, 465, 1024-1030' ],
		[ { src_dport: [ '443', '8443' ] }, 'TCP, UDP 443, 8443' ],
		[ { proto: 'Any' }, 'everything' ],
		[ { proto: [ 'icmp' ] }, 'ICMP' ]
	])
		assert.equal(config.forwardName({ '.name': 'cfg012345', '.anonymous': !section['.name'], ...section }), wanted);
});

test('the program’s texts have the forwards’ names too', () => {
	const own = load('ds4relay.words');
	const refused = {
		code: 'overlaps with forward %q of relay %q (%s); a port of %s can go to one host only',
		args: [ 'forward[0]', 'forward[0]', 'tcp:443', '198.51.100.144' ]
	};
	const found = { code: 'forward %s: %s', args: [ 'web', { code: '%s answers', args: [ 'web' ] } ] };

	assert.equal(own.say(found), 'forward web: web answers');
	own.learn(new Map([ [ 'forward[0]', 'TCP 443' ], [ 'web', 'Web server' ] ]));
	assert.equal(own.say(found), 'forward Web server: web answers');
	assert.equal(own.say(refused),
		'overlaps with forward "TCP 443" of relay "forward[0]" (tcp:443); a port of 198.51.100.144 can go to one host only');
	assert.equal(own.error({ problems: [ { section: 'forward "web"', option: 'dest_ip', value: 'x', message: 'y' } ] }),
		'Forward Web server, Internal host "x": y');
});

test('traffic per second needs two looks at the same counters', () => {
	const at = (time, rx_bytes) => ({ time, counters: { rx_bytes, tx_bytes: 0 } });

	assert.deepEqual(model.rates(at(5000, 6000), at(0, 1000)), { rx: 1000, tx: 0 });
	assert.equal(model.rates(at(5000, 6000), undefined), null);
	assert.equal(model.rates(at(5000, 0), at(0, 1000)), null, 'the tunnel was made anew');
	assert.equal(model.rates(at(5000, 6000), at(5000, 1000)), null);
});

test('what the program says is translated by its code', () => {
	const german = {
		'allowed is %s': 'erlaubt ist %s', 'replies or all': 'replies oder all', 'needs: %s': 'braucht: %s',
		'no answer': 'keine Antwort'
	};
	const translated = load('ds4relay.words', {}, { _: (text) => german[text] ?? text });
	const refused = { code: 'allowed is %s', args: [ { code: 'replies or all' } ] };
	const problem = {
		file: 'FILE', line: 3, section: 'relay "home"', option: 'egress', value: 'x: "y',
		message: 'allowed is replies or all', ...refused
	};

	assert.equal(translated.say(refused), 'erlaubt ist replies oder all');
	assert.equal(translated.say({ code: '%s; %s', args: [ refused, 'no answer' ] }),
		'erlaubt ist replies oder all; no answer', 'an argument is no code');
	assert.equal(translated.message(problem), 'erlaubt ist replies oder all');
	assert.equal(
		translated.error({ message: 'x', problems: [ problem, { ...problem, option: undefined, value: undefined } ] }),
		'Relay home, What goes out by the VPS "x: \\"y": erlaubt ist replies oder all\n' +
		'Relay home: erlaubt ist replies oder all');
	assert.equal(translated.error({ problems: [ { file: 'FILE', line: 3, message: 'no answer' } ] }),
		'FILE:3: no answer');
	assert.equal(translated.error({ message: 'no answer', code: 'no answer' }), 'keine Antwort');
	assert.equal(
		translated.of({ evidence: 'no answer', codes: { evidence: { code: 'no answer' } } }, 'evidence'),
		'keine Antwort');
	assert.deepEqual(
		translated.list({ notes: [ 'no answer', 'other' ], codes: { notes: [ { code: 'no answer' } ] } }, 'notes'),
		[ 'keine Antwort', 'other' ]);
	assert.equal(words.fill('%d%% of %[2]q, %[1]s', [ 5, 'b' ]), '5% of "b", 5');
});

test('a failed check has a title that says so', () => {
	const doctor = readFileSync(new URL('../../internal/doctor/doctor.go', import.meta.url), 'utf8'),
	      titles = [ ...doctor.matchAll(/\{id: "\w+", title: "([^"]+)"/g) ].map(([ , title ]) => title);

	assert.ok(titles.length > 10);

	for (const title of titles) {
		assert.equal(words.title({ title, state: 'ok' }), title);
		assert.notEqual(words.title({ title, state: 'failed' }), title);
	}

	assert.equal(words.title({ title: 'Packets of full size pass both ways', state: 'warning' }),
		'Packets of full size do not pass both ways');
	assert.equal(words.title({ title: 'IPv4 in IPv6 (protocol 4) passes both ways', state: 'warning' }),
		'It is not certain that IPv4 in IPv6 (protocol 4) passes both ways');
	assert.equal(words.title({ title: 'Configuration', state: 'warning' }), 'Configuration');
	assert.equal(words.title({ title: 'of another release', state: 'failed' }), 'of another release');
});

test('a program of the release before has English only', () => {
	const translated = load('ds4relay.words', {}, { _: (text) => 'translated ' + text });

	assert.equal(translated.message({ message: 'allowed is replies or all' }), 'allowed is replies or all');
	assert.equal(translated.error(new Error('no answer')), 'no answer');
	assert.equal(translated.of({ evidence: 'no answer' }, 'evidence'), 'no answer');
	assert.deepEqual(translated.list({ notes: [ 'no answer' ] }, 'notes'), [ 'no answer' ]);
	assert.deepEqual(translated.list({}, 'notes'), []);
});

test('the program’s answers say the same in English by their codes', () => {
	const files = [
		'x\n', 'config\n', 'config relay "home\n', 'option a b\n', 'config relay home\n',
		'config x\nconfig rela y\n', 'config relay home\n\toption colour red\n\toption mtu \'"\\\'\n'
	],
	      listed = new Set(readFileSync(
			new URL('../luci-app-ds4relay/i18n/messages.js', import.meta.url), 'utf8').split('\n')),
	      script = (text) => "_('" + text.replace(/[\\']/g, '\\$&') + "');";
	const codes = (text) => ((text?.code == null) ? [] : [ text.code, ...(text.args ?? []).flatMap(codes) ])
		.filter((code) => /[a-z]{2}/.test(code));
	let problems = 0;

	for (const config of files) {
		const answer = call('check', { config });

		assert.equal(answer.version, 1);

		for (const problem of [ ...answer.errors, ...answer.warnings ]) {
			assert.equal(words.message(problem), problem.message);
			codes(problem).forEach((code) => assert.ok(listed.has(script(code)), code));
			problems++;
		}
	}

	assert.ok(problems > 10);

	const broken = status('broken');

	assert.deepEqual(words.list(broken, 'blocked'), broken.blocked);
	assert.equal(words.of(broken.relays[0], 'waiting'), broken.relays[0].waiting);
	broken.codes.blocked.flatMap(codes).forEach((code) => assert.ok(listed.has(script(code)), code));

	const refused = call('check', { configuration: '' });

	assert.equal(words.error({ message: '', ...refused }), refused.error);
	assert.ok(listed.has(script(refused.code)));
});

test('a configuration with every character is written so that the program reads it', () => {
	const sections = [
		{
			'.name': 'home', '.type': 'relay', ipaddr: '8.8.8.8', ip6addr: '2001:db8:1::/64',
			peeraddr: '2001:db8:2::/64', keep: [ 'tcp:22', 'icmp' ], mtu: '', egress: null
		},
		{
			'.name': 'cfg012345', '.type': 'forward', '.anonymous': true,
			name: `Dad's <b>NAS</b> \\ "x" # ; \u00e4`, proto: [ 'tcp' ], src_dport: '443', dest_ip: '192.168.1.210'
		},
		{
			'.name': 'cfg012346', '.type': 'forward', '.anonymous': true, proto: [ 'tcp' ], src_dport: '443',
			dest_ip: '192.168.1.211'
		}
	];
	const config = load('ds4relay.config', { uci: { sections: () => sections }, form: {} });
	const answer = call('check', { config: config.text(sections) });

	assert.equal(answer.errors.length, 1, JSON.stringify(answer));
	assert.match(answer.errors[0].message, /^overlaps with forward "forward\[0\]"/);
	assert.equal(config.labels(sections).get(answer.errors[0].section), sections[2]);
	assert.deepEqual(answer.warnings, []);
});

test('who sees the example sees that nothing is set up', () => {
	const rules = load('ds4relay.rules');
	const fresh = (sections) => load('ds4relay.config', {
		uci: { sections: (c, type) => sections.filter((s) => s['.type'] == type) }, form: {}
	}).isFresh((text) => rules.isExample(text));
	const example = { '.type': 'relay', enabled: '0', ipaddr: '198.51.100.144', peeraddr: '2001:db8:6ef9::/64' };

	assert.ok(fresh([]));
	assert.ok(fresh([ example ]));
	assert.ok(!fresh([ { ...example, enabled: '1' } ]));
	assert.ok(!fresh([ { ...example, ipaddr: '8.8.8.8' } ]), 'a relay that its owner has switched off');
	assert.ok(!fresh([ example, example ]));
});


test('relays of a router with one public address can carry a forward together', () => {
	const relay = (name, ipaddr, role) => ({ '.name': name, ipaddr, role });

	assert.deepEqual(model.inTurn([ relay('a', '198.51.100.144'), relay('b', '198.51.100.145', 'router'),
		relay('c', '198.51.100.144', 'router'), relay('d', '198.51.100.145', 'vps'), relay('e'), relay('f') ]),
	[ 'a c' ]);
});
