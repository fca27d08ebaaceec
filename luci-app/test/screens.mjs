// Takes the pictures of docs/luci: every tab, light and dark, and on a phone. Usage: screens.mjs DIRECTORY
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { example, fixture, start } from './browser.mjs';

const directory = process.argv[2];

const complete = `config relay 'home'
	option ipaddr '198.51.100.144'
	option peeraddr '2001:db8:6ef9::/64'
	list keep 'tcp:22'

config forward 'web'
	option relay 'home'
	option name 'Web server'
	list proto 'tcp'
	option src_dport '443'
	option dest_ip '192.168.1.210'

config forward 'nas'
	option relay 'home'
	option name 'Dad'\\''s NAS'
	list proto 'tcp'
	list proto 'udp'
	option src_dport '8000-8010'
	option dest_ip '192.168.1.23'
	option dest_port '9000-9010'
	list src_ip '203.0.113.0/24'

config forward 'vpn'
	option relay 'home'
	option name 'VPN'
	option enabled '0'
	list proto 'udp'
	option src_dport '51820'
	option dest_ip '192.168.1.210'
`;

// The check-up of a home whose provider drops protocol 4.
const checks = [
	[ 'config', '', 'Configuration', 'ok', '/etc/config/ds4relay: relays: 1, forwards: 3' ],
	[ 'system', '', 'Kernel and programs', 'ok', 'kernel 6.6.86 with ip6_tunnel, and nft' ],
	[ 'endpoints', 'home', 'Endpoints are known', 'ok',
		'2001:db8:100:0:198:51:100:144 (here), 2001:db8:6ef9:0:198:51:100:144 (the other end)' ],
	[ 'installed', '', 'The kernel is as configured', 'ok',
		'links, addresses, routes, rules, sysctls and nft tables are as configured' ],
	[ 'peer', 'home', 'The other end is reached over IPv6', 'ok',
		'2001:db8:6ef9:0:198:51:100:144 answers ping over pppoe-wan' ],
	[ 'tunnel', 'home', 'IPv4 in IPv6 (protocol 4) passes both ways', 'failed',
		'no packet in: 3 went out to 2001:db8:6ef9:0:198:51:100:144, nothing of protocol 4 comes back ' +
		'(since ds4-home is up: 0 packets)',
		'allow IP protocol 4 (IPv4 in IPv6) between 2001:db8:100:0:198:51:100:144 and ' +
		'2001:db8:6ef9:0:198:51:100:144 in the firewalls of both providers (the VPS\'s control panel, ' +
		'the home\'s modem), then run `ds4relay doctor` at the other end' ],
	[ 'mtu', 'home', 'Packets of full size pass both ways', 'skipped', 'no packet through the tunnel is answered' ],
	[ 'conntrack', '', 'Room for connections', 'ok', '612 connections of at most 15360 are tracked' ],
	[ 'host', 'home', 'The hosts at home answer', 'ok', '192.168.1.210 answers a client' ],
	[ 'clock', '', 'The clock is right', 'warning',
		'it is 4 minutes slow; nobody keeps it right (the relay itself needs no clock)',
		'set the clock: `service sysntpd restart`' ]
].map(([ id, relay, title, state, evidence, remedy ]) => ({ id, relay, title, state, evidence, remedy: remedy ?? '' }));

// Names as people give them, and the state five seconds later.
const status = fixture('running');

Object.assign(status.relays[0].forwards[1], { name: "Dad's NAS" });
Object.assign(status.relays[0].forwards[2], { name: 'VPN', dest_ip: '192.168.1.210' });

const later = structuredClone(status);

later.relays[0].counters.rx_bytes += 512000;
later.relays[0].counters.tx_bytes += 6800000;
later.relays[0].forwards[0].flows.out.bytes += 5800000;

// The same before its first client, and before the VPS is set up.
const unused = structuredClone(status);

unused.relays[0].served = false;
Object.assign(unused.relays[0].counters, { rx_bytes: 840, rx_packets: 10, tx_bytes: 840, tx_packets: 10 });

for (const forward of unused.relays[0].forwards)
	forward.flows = { open: 0, answered: 0 };

const unheard = structuredClone(unused);

unheard.relays[0].other_end = 'silent';
delete unheard.relays[0].heard_s;

const answers = { 'ds4relay.status': status, 'ds4relay.doctor.': { checks } };

for (const check of checks)
	answers[`ds4relay.doctor.${check.id}`] = check;

const running = { config: complete, answers };
const ways = { light: [ {}, {} ], dark: [ { dark: true }, {} ], phone: [ {}, { width: 360, touch: true } ] };
const pictures = [];

for (const view of [ 'overview', 'settings', 'vps', 'diagnose' ])
	for (const way in ways)
		pictures.push([ `${view}-${way}`, view, { ...running, ...ways[way][0] }, ways[way][1] ]);

pictures.push(
	[ 'first-visit', 'settings', { config: example } ],
	[ 'first-visit-phone', 'settings', { config: example }, { width: 360, touch: true } ],
	[ 'overview-waiting', 'overview', {
		config: complete, answers: { ...answers, 'ds4relay.status': fixture('broken') }
	} ],
	[ 'overview-german', 'overview', { ...running, language: 'de' } ],
	[ 'steps', 'overview', { config: complete, answers: { ...answers, 'ds4relay.status': unused } } ],
	[ 'steps-phone', 'overview', {
		config: complete, answers: { ...answers, 'ds4relay.status': unheard }
	}, { width: 360, touch: true } ],
	[ 'steps-dark', 'overview', { config: complete, dark: true, answers: { ...answers, 'ds4relay.status': unheard } } ],
	[ 'forward', 'settings', running, {}, async (page) => {
		await page.locator('tr[data-sid="nas"] .cbi-button-edit').click();
		await page.locator('.modal .cbi-map').waitFor();
		await page.locator('.modal [data-name="src_dport"] input').fill('440-450');
		await page.locator('.modal [data-name="src_dport"] input').blur();
		await page.locator('.modal .cbi-button-positive').click();
		await page.waitForTimeout(800);
	} ]
);

// The traffic of the last minutes, which ends with what the status says: a page that was open for long.
function past(now) {
	const { counters, forwards } = status.relays[0],
	      samples = [];
	let { rx_bytes: rx, tx_bytes: tx } = counters,
	    inside = forwards[0].flows.in.bytes,
	    outside = forwards[0].flows.out.bytes,
	    nas = forwards[1].flows.out.bytes;

	for (let i = 1; i < 60; i++) {
		const wave = 1 + Math.sin(i / 4) * Math.sin(i / 11) + ((i * 7919) % 13) / 20;

		nas -= (i > 20 && i < 45) ? 4e5 * wave * wave : 0;
		rx -= 2e5 * wave;
		tx -= 2.4e6 * wave;
		inside -= 1.6e4 * wave;
		outside -= 2e6 * wave;
		samples.unshift({
			time: now - i * 5000, tunnel: [ rx, tx ],
			forwards: { web: [ inside, outside ], 'forward[0]': [ 61233, nas ] }
		});
	}

	return JSON.stringify({ home: samples });
}

const lab = await start();

for (const [ name, view, setting, options, act ] of pictures) {
	const page = await lab.open(view, setting, options ?? {});

	await page.waitForTimeout(1200);

	if (setting.answers?.['ds4relay.status'] === status && view == 'overview') {
		await page.evaluate((text) => window.sessionStorage.setItem('ds4relay.graph', text), past(Date.now()));
		await page.reload();
		await page.waitForSelector('.ds4-graph polyline');
		await page.change({ ...setting, answers: { ...answers, 'ds4relay.status': later } });
		await page.waitForFunction(() =>
			/[1-9][.0-9]* .?i?B\/s/.test(document.querySelector('svg.ds4-path').textContent));
	}

	if (view == 'diagnose') {
		await page.locator('.ds4-run button').click();
		await page.waitForSelector('.ds4-alert');
	}

	if (act)
		await act(page);

	const file = join(directory, `${name}.png`);

	await page.screenshot({ path: file, fullPage: !act });
	execFileSync('pngquant', [ '--force', '--ext', '.png', '--quality', '60-95', '--strip', file ]);

	if (page.errors.length)
		console.log(name, page.errors);
}

await lab.stop();
