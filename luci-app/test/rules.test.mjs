// What the program refuses in an option the form refuses, with the same words; what it takes the form takes.
import test from 'node:test';
import assert from 'node:assert/strict';
import { load } from './load.mjs';
import { call, schema } from './program.mjs';

const rules = load('ds4relay.rules');
const words = load('ds4relay.words');

rules.protocols = schema.protocols;

const relay = { ipaddr: '198.51.100.144', ip6addr: '2001:db8:1::/64', peeraddr: '2001:db8:2::/64', role: 'router' };
const key = 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=';
const overWireGuard = {
	ipaddr: '198.51.100.144', transport: 'wireguard', public_key: key, peeraddr: '2001:db8:2::1', role: 'router'
};
const forward = { proto: 'tcp', src_dport: '443', dest_ip: '192.168.1.210' };

const addresses6 = [
	'2001:db8::1', '2001:db8:1::/64', '2001:db8:1::1/64', '2001:db8:1::/48', '2001:db8:1::/128', '2001:db8::/129',
	'2001:db8::/064', '::/64', '::', '::1', 'fe80::1', 'fe80::/64', 'ff02::1', 'fd00::1', '::ffff:192.0.2.1',
	'::ffff:0:0/96', '2001:db8::192.0.2.1', '2001:db8::192.0.2.1:1', '2001:db8:::1', ':1::2', '1::2:',
	'1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8:9', '1:2:3:4:5:6:7::', '::2:3:4:5:6:7:8', '1::2::3', '12345::', '2001:db8::g',
	'2001:DB8::A', 'fe80::1%eth0', '2001:db8:0:0:1:0:0:1', '2001:db8:1:2:198::/80', '2001:db8::/65',
	'2001:db8:1:0:198:51::/96', '2001:db8::/0', 'auto', 'none', '192.0.2.1', '/64', '2001:db8::/', '2001:db8::/-1',
	'2001:db8::/+64', '1:0:0:2::/63', '2001:db8:0:1::/63', '2001:db8::1/127', '64:ff9b::1',
	'2001:db8:0:0:0:0:0:0:1', '02001:db8::1'
];

const table = {
	relay: {
		enabled: [ '0', '1', 'yes', 'no', 'on', 'off', 'true', 'false', 'enabled', 'disabled', '2', 'YES', 'y' ],
		role: [ 'router', 'vps', 'Router', 'host' ],
		ipaddr: [
			'198.51.100.144', '8.8.8.8', '10.0.0.1', '100.64.0.1', '100.128.0.1', '127.0.0.1', '169.254.1.1',
			'172.16.0.1', '172.32.0.1', '192.168.1.1', '192.0.0.1', '192.0.2.1', '198.18.0.1', '198.20.0.1',
			'224.0.0.1', '240.0.0.1', '255.255.255.255', '0.1.2.3', '1.2.3', '1.2.3.4.5', '1.2.3.256', '01.2.3.4',
			'1.2.3.04', '1.2.3.4/32', '1.2.3.4/24', '1.2.3.0/24', '1.2.3.4/33', '10.0.0.1/8', '2001:db8::1',
			'example.org', '1.2.3.-4', ' 1.2.3.4'
		],
		nicaddr: [
			'10.0.0.5', '172.26.3.4', '198.51.100.7', '127.0.0.1', '224.0.0.1', '0.0.0.5', '10.0.0.5/24', '10.0.0.0/24',
			'10.0.0', '2001:db8::5', 'eth0'
		],
		ip6addr: addresses6,
		peeraddr: addresses6.concat([
			'vps.example.org', 'vps', 'vps.example.org.', 'a..b', '-a.b', 'a-.b', 'a_b.c', '1.2.3.4', '1.2.c', 'ü.de',
			'x'.repeat(64) + '.de', 'a.' + 'b'.repeat(63), 'a b.c'
		]),
		tunlink: [
			'wan6', 'pppoe-wan', 'eth0.7', '@lan', 'a b', 'a/b', 'a:b', 'a"b', 'sixteen-chars-xx', 'fifteen-chars-x',
			'..', '.', 'ä', 'äääääääää', 'a%b', 'all'
		],
		device: [
			'wrap1', 'ds4-home', '-a', '.', '..', 'all', 'default', 'fifteen-chars-x', 'sixteen-chars-xx', 'a b',
			'a:b', 'ä', '_', '.a'
		],
		mtu: [ 'auto', '576', '575', '65000', '65001', '01500', '+1500', '1500.0', '1e3', 'x' ],
		encaplimit: [ 'none', 'ignore', 'Ignore', '0', '255', '256', '-1', '00', '4' ],
		ttl: [ '1', '255', '0', '256', '064', 'auto' ],
		ip4table: [
			'1', '42', '252', '253', '254', '255', '256', '4294967295', '4294967296', '0', 'main', '042',
			'99999999999'
		],
		priority: [ '1', '4600', '32000', '32001', '0', '-1', 'x' ],
		egress: [ 'replies', 'all', 'none', 'All' ],
		transport: [ 'ipip6', 'wireguard', 'WireGuard', 'wg' ],
		public_key: [
			key, 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmp=',
			'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo', 'x', 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066Spjqqb TmoA='
		],
		private_key_file: [ '/etc/ds4relay/keys/home', 'keys/home', '/', '/a b', "/a'b", '/ä', '/a;b', '/' + 'x'.repeat(255) ],
		preshared_key_file: [ '/etc/ds4relay/keys/home.psk', 'home.psk' ],
		listen_port: [ '51846', '0', '65535', '65536', 'x' ],
		endpoint_port: [ '51846', '0', '65535', '65536', 'x' ],
		persistent_keepalive: [ '0', '25', '65535', '65536', '-1' ],
		peer: [ 'plain', 'Plain', 'x' ],
		egress_private: [ '0', '1', 'yes', 'x' ],
		killswitch: [ '0', '1', 'off', 'x' ],
		masq: [ '0', '1', 'off', 'x' ],
		flow_offloading: [ '0', '1', 'off', 'x' ],
		standby: [ '0', '1', 'off', 'x' ],
		target_local: [ '0', '1', 'off', 'x' ],
		keep: [
			'tcp:22', 'udp:60000-61000', 'icmp', 'tcp', 'icmp:1', 'gre', '47', '6:22', '22', 'tcp:', 'tcp:0',
			'tcp:65536', 'tcp:2-1', 'tcp:1-1', 'foo', 'foo:1', ':22', 'tcp:22:23', 'sctp:5', 'tcp:022', 'all',
			'TCP:22', 'tcp:22:30'
		]
	},
	forward: {
		enabled: [ '0', '1', 'x' ],
		name: [
			'Web', "Dad's <b>NAS</b>", 'ä'.repeat(64), 'ä'.repeat(65), 'a\tb', 'a\u0085b', '😀'.repeat(64), 'a"b\\c'
		],
		proto: [ 'tcp', 'udp', 'sctp', 'tcpudp', '6', '132', 'foo', '256', '0', 'TCP', 'TcpUdp', '06' ],
		src_dport: [
			'443', '8000-8010', '0', '65535', '65536', '1-65535', '10-9', '80,443', '80:90', '90:80', '80:90:95',
			'80-90:95', ':80', '080', ' 80', '-1', '1-', 'http'
		],
		dest_ip: [
			'192.168.1.210', '10.1.2.3', '127.0.0.1', '0.0.0.1', '224.0.0.1', '223.255.255.255', '255.255.255.255',
			'192.168.1.0/24', '192.168.1.5/24', '192.168.1.5/32', '2001:db8::1', 'nas', '192.168.1'
		],
		dest_port: [ '443', '8443', '8000-8010', '0', '65536', 'x', '443-443', '443-444', '443:443', '443:444' ],
		src_ip: [
			'203.0.113.7', '203.0.113.0/24', '203.0.113.1/24', '0.0.0.0/0', '1.2.3.4/32', '1.2.3.4/33', '1.2.3.4/',
			'128.0.0.0/1', '2001:db8::/32', 'x', '10.0.0.0/08'
		],
		egress: [ 'replies', 'all', 'x' ],
		killswitch: [ '0', 'no', 'x' ],
		masq: [ '0', 'no', 'x' ]
	}
};

const quote = (text) => "'" + text.replace(/'/g, "'\\''") + "'";

// A file with that one value, as the program sees it: null, or the message about the option.
function refusedByProgram(type, option, value, others) {
	const given = { relay: { ...relay }, forward: { ...forward }, [type]: { ...others } };
	let file = '';

	given[type][option] = value;

	for (const section of [ 'relay', 'forward' ]) {
		file += `config ${section} home${section == 'relay' ? '' : '_web'}\n`;

		for (const [ name, text ] of Object.entries(given[section]))
			file += `\toption ${name} ${quote(text)}\n`;
	}

	const problems = call('check', { config: file }).errors
		.filter((problem) => problem.option == option && problem.section.startsWith(type));

	problems.forEach((problem) => assert.equal(words.message(problem), problem.message));

	return problems.length ? problems[0].message : null;
}

// Between options, which the method check is asked about: not the rule of one value.
const spanning = [ /^both endpoints are/, /^overlaps with/, /^is also the tunlink/, /^the device/ ];

/* The other options of a section with this one: some count with one transport only, and some at one end. */
function othersOf(type, option) {
	if (type != 'relay')
		return forward;

	if ([ 'listen_port', 'peer' ].includes(option))
		return { ...overWireGuard, role: 'vps' };

	if (option == 'nicaddr')
		return { ...relay, role: 'vps' };

	return [ 'public_key', 'private_key_file', 'preshared_key_file', 'endpoint_port', 'persistent_keepalive' ].includes(option)
		? overWireGuard
		: relay;
}

function compare(type, options, base) {
	for (const [ option, values ] of Object.entries(options))
		test(`${type}.${option}${base ? ' with wireguard' : ''}`, () => {
			const others = base ?? othersOf(type, option);
			const spec = schema.sections.find((section) => section.type == type)
				.options.find((one) => one.name == option);

			for (const value of values) {
				// A blank separates the values of a list that is written as one option.
				if (spec.list && value.includes(' '))
					continue;

				const expected = refusedByProgram(type, option, value, others);

				if (expected && spanning.some((pattern) => pattern.test(expected)))
					continue;

				const refused = rules.check(type, option, value,
					{ ...others, [option]: value });

				assert.equal(refused ? words.refusal(spec, refused) : null, expected,
					`${option} ${JSON.stringify(value)}`);
			}
		});
}

for (const [ type, options ] of Object.entries(table))
	compare(type, options);

compare('relay', {
	peeraddr: addresses6.concat([
		'198.51.100.144', '10.0.0.1', '127.0.0.1', '0.0.0.0', '255.255.255.255', '224.0.0.1', '169.254.1.1', '240.0.0.1',
		'198.51.100.144/24', '198.51.100.0/24', 'vps.example.net', 'vps'
	])
}, overWireGuard);

test('every option has a rule, and a test', () => {
	for (const section of schema.sections.filter((one) => table[one.type]))
		for (const spec of section.options) {
			assert.equal(typeof rules.options[section.type][spec.name], 'function',
				`${section.type}.${spec.name} has no rule`);

			if (![ 'relay', 'backup' ].includes(spec.name)) /* names of other relays */
				assert.ok(table[section.type][spec.name], `${section.type}.${spec.name} has no test`);
		}
});

test('what is missing is said as the program says it', () => {
	const file = "config relay 'home'\n\nconfig forward 'web'\n";
	const said = call('check', { config: file }).errors.map((problem) => problem.message);

	for (const [ type, name ] of [
		[ 'relay', 'ipaddr' ], [ 'relay', 'peeraddr' ], [ 'forward', 'dest_ip' ], [ 'forward', 'src_dport' ]
	]) {
		const spec = schema.sections.find((section) => section.type == type).options.find((one) => one.name == name);

		assert.ok(said.includes(words.missing(spec, true)), `${words.missing(spec)}\nis none of\n${said.join('\n')}`);
	}
});

test('an endpoint is made of a prefix as the program makes it', () => {
	const file = "config relay home\n\toption role vps\n\toption ipaddr 198.51.100.144\n" +
		"\toption ip6addr 2001:db8:fdd2::/64\n\toption peeraddr 2001:db8:fdd2:0:198:51:100:144\n";

	assert.match(call('check', { config: file }).errors[0].message,
		new RegExp('both endpoints are ' + rules.endpoint('2001:db8:fdd2::/64', '198.51.100.144')));
	assert.equal(rules.endpoint('2001:db8:fdd2::/64', ''), null);
});

test('addresses of documentation are examples', () => {
	for (const text of [ '198.51.100.144', '203.0.113.1', '192.0.2.9', '2001:db8:6ef9::/64', '2001:0DB8::1' ])
		assert.ok(rules.isExample(text), text);

	for (const text of [ '198.51.101.1', '8.8.8.8', '2001:db9::1', '2a01:db8::1', 'vps.example.org', '', undefined ])
		assert.ok(!rules.isExample(text), text);
});

test('an internal port stands for one external port', () => {
	const spec = schema.sections.find((section) => section.type == 'forward')
		.options.find((one) => one.name == 'dest_port');

	for (const src_dport of [ '443 444', [ '443', '444', '8000-8010' ] ]) {
		const given = [ src_dport ].flat().flatMap((text) => text.split(' ')),
		      file = "config relay home\n\toption role router\n\toption ipaddr 198.51.100.144\n" +
			"\toption peeraddr 2001:db8:1::1\n\n" +
			"config forward web\n\toption dest_ip 192.168.1.210\n\toption dest_port 8443\n" +
			given.map((port) => `\tlist src_dport ${port}\n`).join('');
		const said = call('check', { config: file }).errors.map((problem) => problem.message);

		assert.deepEqual(said, [
			words.refusal(spec, rules.check('forward', 'dest_port', '8443', { ...forward, src_dport }))
		]);
	}
});

test('one VPS is recognised by its network', () => {
	for (const text of [ '2001:db8:1::/64', '2001:db8:1::5', '2001:DB8:1:0::/64', '2001:db8:1:0:198:51:100:144/128' ])
		assert.equal(rules.network(text), '2001:db8:1::', text);

	for (const text of [ 'vps.example.org', '', '192.0.2.1' ])
		assert.equal(rules.network(text), null, text);
});
