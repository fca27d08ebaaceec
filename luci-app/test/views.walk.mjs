// A walk through the app in a browser, as a person does it.
import test, { after, afterEach, before } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { example, fixture, home, start } from './browser.mjs';
import { base, conflicts, ours, read } from './catalogue.mjs';

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

config forward
	option relay 'home'
	option name 'Dad'\\''s <b>NAS</b>'
	list proto 'tcp'
	list proto 'udp'
	option src_dport '8000-8010'
	option dest_ip '192.168.1.23'
	option dest_port '9000-9010'
`;

let lab;

before(async () => { lab = await start(); });
afterEach(() => lab.closePages());
after(() => lab.stop());

// `ds4relay check` of a file, on a router.
function check(text) {
	const file = join(mkdtempSync(join(tmpdir(), 'walk-')), 'ds4relay');

	writeFileSync(file, text.replace(/^config relay .*\n(?=((?:\t.*\n)*))/gm, (head, options) =>
		/option role/.test(options) ? head : head + "\toption role 'router'\n"));

	return execFileSync(process.env.DS4RELAY_BINARY, [ 'check', file ], { encoding: 'utf8' });
}

const field = (page, section, option) => page.locator(`[id="widget.cbid.ds4relay.${section}.${option}"]`);
const row = (page, name) => page.locator(`tr[data-title="${name.replace(/"/g, '\\"')}"]`);
const modal = (page) => page.locator('#modal_overlay .modal');

// The line below a field.
async function says(page, section, option, words) {
	const line = page.locator(`[id="cbid.ds4relay.${section}.${option}.error"]`);

	await page.waitForFunction(([ id, text ]) => document.getElementById(id).textContent == text,
		[ `cbid.ds4relay.${section}.${option}.error`, words ])
		.catch(async () => assert.equal(await line.textContent(), words, option));
}

async function edit(page, name) {
	await row(page, name).locator('.cbi-button-edit').click();
	await modal(page).locator('.cbi-map').waitFor();
}

async function choose(page, dropdown, value) {
	await dropdown.click();
	await dropdown.locator(`ul.dropdown li[data-value="${value}"]`).click();
}

async function saved(page) {
	await page.locator('.cbi-button-save').click();
	await page.waitForFunction(() => !document.querySelector('.cbi-button-save').disabled);
}

async function applied(page) {
	// The answer may come before click() returns.
	const confirmed = page.waitForResponse((response) => response.url().includes('/uci/confirm'));

	await page.locator('.cbi-button-apply').first().click();
	await confirmed;
}

// The form of a first visit without an invitation.
async function byHand(page) {
	await page.getByRole('button', { name: 'I have no invitation' }).click();
	await page.locator('.ds4-defaults').waitFor();
}

// Waits for a condition.
async function until(condition) {
	for (let i = 0; i < 1200 && !await condition(); i++)
		await new Promise((resolve) => { setTimeout(resolve, 100); });

	assert.ok(await condition());
}

function noErrors(page) {
	assert.deepEqual(page.errors, []);
}

test('first visit with an invitation: one field, the VPS is shown, then the server is asked for', async () => {
	const answer = {
		version: 1, relay: 'home', hosts: [ '2001:db8:77::1', '203.0.113.77' ], fingerprint: 'SHA256:<b>x</b>',
		transport: 'ipip6', ipaddr: '203.0.113.77', expires: 2000000000
	};
	const page = await lab.open('settings', {
		config: '', answers: { 'ds4relay.invitation': answer, 'ds4relay.join': answer }
	});

	assert.equal(await page.locator('#view input:visible, #view textarea:visible, #view select:visible').count(), 1);
	assert.equal(await page.locator('.cbi-button-apply').count(), 0, 'there is nothing to apply yet');
	await page.getByLabel('Invitation').fill('ds4relay1.abc\ndef');
	await page.getByRole('button', { name: 'Continue' }).click();
	await page.getByText('SHA256:<b>x</b>').waitFor();
	assert.ok(await page.getByText('2001:db8:77::1, 203.0.113.77').isVisible());

	// The program writes the relay.
	await page.change({
		config: "config relay 'home'\n\toption ipaddr '203.0.113.77'\n\toption peeraddr '2001:db8:77::1'\n",
		answers: { 'ds4relay.invitation': answer, 'ds4relay.join': answer }
	});
	await page.getByRole('button', { name: 'Join this VPS' }).click();
	await choose(page, page.locator('[id="cbid.ds4relay.server.dest_ip"]'), '192.168.1.210');
	assert.equal(await page.locator('.cbi-value:visible').count(), 3);
	await field(page, 'server', 'src_dport').fill('443');
	await applied(page);
	await page.waitForURL(/\/ds4relay\/overview$/);

	const { file } = await page.state();

	assert.match(check(file), /correct \(relays: 1, forwards: 1\)/);
	assert.match(file, /option relay 'home'/);
	assert.match(file, /option name 'Web server/);
	noErrors(page);
});

test('first visit: an invitation that is none is refused below the field', async () => {
	const page = await lab.open('settings');

	await page.getByLabel('Invitation').fill('hello');
	await page.getByRole('button', { name: 'Continue' }).click();
	await page.getByText(/this is not an invitation/).waitFor();
	assert.equal(await page.getByRole('button', { name: 'Join this VPS' }).count(), 0);
	assert.equal((await page.state()).changes, 0);
	noErrors(page);
});

test('what the VPS does not take is named, on both pages', async () => {
	const status = structuredClone(fixture('running'));

	status.relays[0].push = {
		version: 1, relay: 'home', state: 'refused', since: 1, text: 'x', problems: [ {
			section: 'forward "web"', option: 'src_dport', value: '22', message: 'no',
			code: 'the VPS gives no reason'
		} ]
	};

	for (const view of [ 'overview', 'settings' ]) {
		const page = await lab.open(view, { config: complete, answers: { 'ds4relay.status': status } });

		await page.getByText('Relay home: the VPS does not take this').waitFor();
		assert.match(await page.locator('.ds4-alert', { hasText: 'does not take' }).innerText(),
			/External ports? "22": the VPS gives no reason/);
		noErrors(page);
	}

	delete status.relays[0].push;
	status.relays[0].joined = true;

	const other = await lab.open('vps', { config: complete, answers: { 'ds4relay.status': status } });

	await other.getByText('The VPS is paired with this router').waitFor();
	assert.equal(await other.getByRole('button', { name: 'Copy all' }).count(), 0, 'its file is its own');
	noErrors(other);
});

test('first visit: four values, and the file is one that the program takes', async () => {
	const page = await lab.open('settings');

	await byHand(page);
	assert.equal(await page.locator('.cbi-value:visible').count(), 6);
	assert.equal(await page.locator('.cbi-input-invalid').count(), 0);
	assert.match(await page.locator('.ds4-defaults').innerText(), /2001:db8:100::\/56 on wan6/);

	await field(page, 'home', 'ipaddr').fill(' 203.0.113.77\t');
	await field(page, 'home', 'peeraddr').pressSequentially('2001');
	assert.equal(await page.locator('.cbi-input-invalid').count(), 0, 'it is being typed');
	await field(page, 'home', 'peeraddr').blur();
	assert.equal(await page.locator('.cbi-input-invalid').count(), 1, 'it was left');
	await field(page, 'home', 'peeraddr').fill(' 2001:db8:77::/64 ');
	await field(page, 'home', 'peeraddr').blur();
	assert.equal(await page.locator('.cbi-input-invalid').count(), 0, 'it was pasted with blanks');

	const server = page.locator('[id="cbid.ds4relay.server.dest_ip"]'),
	      choices = await server.locator('li')
		.evaluateAll((items) => items.map((item) => item.getAttribute('data-value')));

	assert.deepEqual([ ...new Set(choices.filter((value) => /^\d/.test(value))) ],
		[ '192.168.1.23', '192.168.1.210', '192.168.1.40' ], 'those with a name come first');
	await choose(page, server, '192.168.1.210');
	await field(page, 'server', 'src_dport').fill('25565');
	await field(page, 'server', 'proto').selectOption('tcp udp');
	await applied(page);
	await page.waitForURL(/\/ds4relay\/overview$/);
	await reaches(page, 'This router');

	const { file } = await page.state();

	assert.match(check(file), /correct \(relays: 1, forwards: 1\)/);
	assert.match(file, /option ipaddr '203\.0\.113\.77'/);
	assert.match(file, /option peeraddr '2001:db8:77::\/64'/);
	assert.match(file, /option dest_ip '192\.168\.1\.210'/);
	assert.match(file, /option src_dport '25565'/);
	assert.match(file, /option name 'Minecraft'/);
	assert.match(file, /list proto 'tcp'\n\s+list proto 'udp'/);
	assert.match(file, /list keep 'tcp:22'/);
	assert.doesNotMatch(file, /enabled '0'|web/i);
	noErrors(page);
});

test('first visit with WireGuard: the keys take the place of IPv6 addresses', async () => {
	const page = await lab.open('settings'), key = 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=';

	await byHand(page);
	assert.equal(await field(page, 'home', 'public_key').isVisible(), false);
	await field(page, 'home', 'ipaddr').fill('203.0.113.77');
	await field(page, 'home', 'peeraddr').fill('203.0.113.77');
	await field(page, 'home', 'peeraddr').blur();
	assert.equal(await page.locator('.cbi-input-invalid').count(), 1, 'IPv4 in IPv6 needs IPv6');
	await field(page, 'home', 'transport').selectOption('wireguard');
	assert.match(await page.locator('[data-name="public_key"]').innerText(), /ds4relay genkey home/);
	await choose(page, page.locator('[id="cbid.ds4relay.server.dest_ip"]'), '192.168.1.210');
	await field(page, 'server', 'src_dport').fill('443');
	await saved(page);
	assert.match(await page.locator('.ds4-problems').innerText(),
		/^[^\n]*\n[^\n]*“The other end’s public key” is missing[^\n]*$/);
	await field(page, 'home', 'public_key').fill(key);
	await applied(page);
	await page.waitForURL(/\/ds4relay\/overview$/);
	await reaches(page, 'This router');

	const { file } = await page.state();

	assert.match(check(file), /correct \(relays: 1, forwards: 1\)/);
	assert.match(file, /option transport 'wireguard'/);
	assert.match(file, /option public_key 'hSDwCYkwp1R0/);
	assert.match(file, /option peeraddr '203\.0\.113\.77'/);
});

test('first visit without any section does the same', async () => {
	const page = await lab.open('settings', { config: '' });

	await byHand(page);
	await field(page, 'home', 'ipaddr').fill('203.0.113.77');
	await field(page, 'home', 'peeraddr').fill('vps.example.org');

	const host = page.locator('[id="cbid.ds4relay.server.dest_ip"]');

	await host.click();
	await host.locator('ul.dropdown input.create-item-input').fill('192.168.1.99');
	await host.locator('ul.dropdown input.create-item-input').press('Enter');
	await field(page, 'server', 'src_dport').fill('8000-8010');
	await applied(page);

	const { file } = await page.state();

	assert.match(check(file), /correct \(relays: 1, forwards: 1\)/);
	assert.match(file, /option dest_ip '192\.168\.1\.99'/);
	assert.match(file, /option name 'Port 8000-8010'/);
	assert.match(file, /list proto 'tcp'/);
	assert.match(file, /list keep 'tcp:22'/);
	noErrors(page);
});

test('first visit: what is left out is named, and nothing is saved', async () => {
	const page = await lab.open('settings');

	await byHand(page);
	await field(page, 'home', 'ipaddr').fill('192.168.1.1');
	await saved(page);

	const said = await page.locator('.ds4-problems').innerText();

	assert.match(said,
		/Public IPv4 address: allowed is the VPS's public IPv4 address \(not a private, multicast or reserved one\)/);
	assert.match(said, /“The other end of the tunnel” is missing; it takes an IPv6 address such as/);
	assert.match(said, /“Port” is missing; it takes [^\n]*such as 8000-8010$/m, 'this form cannot take all');
	assert.ok(await page.locator('.cbi-input-invalid').count() >= 4);
	assert.equal((await page.state()).changes, 0);
	assert.equal(await page.evaluate(() => document.activeElement.id), 'widget.cbid.ds4relay.home.ipaddr');
});

test('a wrong value is refused below its field, in the words of the program', async () => {
	const page = await lab.open('settings', { config: complete });

	await edit(page, 'home');

	for (const [ tab, option, wrong, words ] of [
		[ 'general', 'ipaddr', '10.0.0.1',
			"allowed is the VPS's public IPv4 address (not a private, multicast or reserved one)" ],
		[ 'general', 'peeraddr', '2001:db8::/96',
			'the endpoint 2001:db8::198:51:100:144 made of it and “Public IPv4 address” lies outside; ' +
			'allowed is a prefix of at most 64 bits, or an address' ],
		[ 'general', 'ip6addr', 'fe80::1',
			'allowed is an IPv6 address such as 2001:db8::1, or a prefix of at most 64 bits such as 2001:db8:1::/64' ],
		[ 'general', 'keep', '22',
			'allowed is protocol:port, protocol:first-last or protocol, such as tcp:22, udp:60000-61000 or icmp' ],
		[ 'advanced', 'mtu', '99', 'allowed is auto, or a number from 576 to 65000' ],
		[ 'advanced', 'encaplimit', '256', 'allowed is none, or a number from 0 to 255' ],
		[ 'advanced', 'ttl', '0', 'allowed is a number from 1 to 255' ],
		[ 'advanced', 'device', 'a device name',
			'allowed is a device name of 1 to 15 characters out of a-z A-Z 0-9 _ . -' ],
		[ 'advanced', 'ip4table', '254',
			'allowed is a routing table number from 1 to 4294967295, except 253, 254 and 255' ],
		[ 'advanced', 'priority', '99999',
			'allowed is a number from 1 to 32000, the first of six priorities for ip rules' ]
	]) {
		await modal(page).locator(`.cbi-tabmenu [data-tab="${tab}"] a`).click();

		const input = field(page, 'home', option), before_ = await input.inputValue();

		await input.fill(wrong);
		await input.blur();
		await says(page, 'home', option, words);
		assert.equal(await input.getAttribute('aria-invalid'), 'true', option);
		await input.fill(before_);
		await input.blur();
		await says(page, 'home', option, '');
	}

	await modal(page).locator('button', { hasText: 'Dismiss' }).click();
	await edit(page, 'Web server');

	const sid = 'web';

	for (const [ option, wrong, words ] of [
		[ 'name', 'x'.repeat(65), 'allowed is any text of at most 64 characters on one line' ],
		[ 'src_dport', '0', 'allowed is a port from 1 to 65535, or a range such as 8000-8010' ],
		[ 'dest_port', '8000-8010', 'has 11 ports, “External port” has 1; allowed is as many, mapped one to one' ]
	]) {
		const input = field(page, sid, option), before_ = await input.inputValue();

		await input.fill(wrong);
		await input.blur();
		await says(page, sid, option, words);
		await input.fill(before_);
		await input.blur();
		await says(page, sid, option, '');
	}

	await field(page, sid, 'src_dport').fill('0');
	await modal(page).locator('.cbi-button-positive').click();
	assert.match(await modal(page).locator('.ds4-problems').innerText(), /External port: allowed is a port/);
	assert.equal((await page.state()).changes, 0);
	noErrors(page);
});

test('what spans sections is refused before it is saved', async () => {
	const page = await lab.open('settings', { config: complete });

	await edit(page, 'Web server');
	await field(page, 'web', 'src_dport').fill('8005');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).locator('.ds4-problems').waitFor();
	assert.match(await modal(page).locator('.ds4-problems').innerText(),
		/Forward Dad's <b>NAS<\/b>, External port: overlaps with forward "Web server" of relay "home" \(tcp:8005 → 192\.168\.1\.210\); a port of 198\.51\.100\.144 can go to one host only/);

	await field(page, 'web', 'src_dport').fill('22');
	await modal(page).locator('.cbi-button-positive').click();
	await page.waitForFunction(() => /also kept/.test(document.querySelector('.ds4-problems')?.innerText));
	assert.match(await modal(page).locator('.ds4-problems').innerText(),
		/is also kept for the VPS \(list keep 'tcp:22' of relay home|is also kept for the VPS/);
	assert.equal((await page.state()).changes, 0);

	await field(page, 'web', 'src_dport').fill('444');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	assert.match((await page.state()).staged, /option src_dport '444'/);
	noErrors(page);
});

test('a mistake elsewhere in the file is shown, and keeps nobody from mending another', async () => {
	const page = await lab.open('settings', {
		config: complete.replace("dest_ip '192.168.1.23'", "dest_ip '300.1.1.1'")
	});

	assert.match(await page.locator('.ds4-alert').first().innerText(),
		/Dad's <b>NAS<\/b>, Internal host: allowed is the IPv4 address of one host/);
	await edit(page, 'Web server');
	await field(page, 'web', 'src_dport').fill('444');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	assert.match((await page.state()).staged, /option src_dport '444'/);
	noErrors(page);
});

test('add, edit, disable, reorder by keys, delete', async () => {
	const page = await lab.open('settings', { config: complete });

	await page.locator('#cbi-ds4relay-forward .cbi-button-add').click();
	await modal(page).locator('.cbi-map').waitFor();

	const sid = (await modal(page).locator('[data-section-id]').first().getAttribute('data-section-id'));

	await field(page, sid, 'name').fill('Mail & more');
	await field(page, sid, 'src_dport').fill('25');
	await choose(page, modal(page).locator(`[id="cbid.ds4relay.${sid}.dest_ip"]`), '192.168.1.23');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	await row(page, 'Mail & more').waitFor();

	await row(page, 'Web server').locator('input[type="checkbox"]').uncheck();
	await row(page, 'Mail & more').locator('.drag-handle').focus();
	await page.keyboard.press('ArrowUp');
	await page.keyboard.press('ArrowUp');
	assert.equal(await page.evaluate(() => document.activeElement.classList.contains('drag-handle')), true);
	await saved(page);

	await row(page, "Dad's <b>NAS</b>").locator('.cbi-button-remove').click();
	await row(page, "Dad's <b>NAS</b>").waitFor({ state: 'detached' });
	await applied(page);

	const { file } = await page.state();

	assert.match(check(file), /correct \(relays: 1, forwards: 1\)/);
	assert.ok(file.indexOf('Mail & more') < file.indexOf('Web server'), file);
	assert.match(file, /config forward 'web'[^]*option enabled '0'/);
	assert.doesNotMatch(file, /NAS/);
	noErrors(page);
});

test('several ports are typed in one line, and those of a list are shown in one', async () => {
	const page = await lab.open('settings', {
		config: complete.replace("option src_dport '443'", "list src_dport '443'\n\tlist src_dport '8443'")
	});

	await row(page, 'Web server').getByText('443, 8443').waitFor();
	await edit(page, 'Web server');
	assert.equal(await field(page, 'web', 'src_dport').inputValue(), '443 8443');
	await field(page, 'web', 'src_dport').fill('25 0');
	await field(page, 'web', 'src_dport').blur();
	await says(page, 'web', 'src_dport', 'allowed is a port from 1 to 65535, or a range such as 8000-8010');
	await field(page, 'web', 'src_dport').fill('25 465 8100-8110');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	await applied(page);

	const { file } = await page.state();

	assert.match(check(file), /correct \(relays: 1, forwards: 2\)/);
	assert.match(file, /src_dport '25 465 8100-8110'/);
	noErrors(page);
});

test('rows are dragged', async () => {
	const page = await lab.open('settings', { config: complete });
	const from = row(page, "Dad's <b>NAS</b>").locator('.drag-handle'), to = row(page, 'Web server');

	await from.dragTo(to, { targetPosition: { x: 40, y: 2 } });
	await applied(page);

	const { file } = await page.state();

	assert.ok(file.indexOf('NAS') < file.indexOf('Web server'), file);
});

test('a name is text everywhere, and comes back from the file as it was typed', async () => {
	const page = await lab.open('settings', { config: complete });
	const name = `Mom's "<img src=x onerror=alert(1)>" & \\ 'co'`;

	await edit(page, "Dad's <b>NAS</b>");
	assert.equal(await modal(page).locator('h4').first().innerText(), "Forward Dad's <b>NAS</b>");
	await modal(page).locator('[data-name="name"] input').fill(name);
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	await applied(page);
	await page.goto(page.url());
	await page.waitForSelector('tr[data-sid]');
	assert.ok((await page.locator('tr[data-sid]').evaluateAll((rows) => rows.map((one) => one.dataset.title)))
		.includes(name));

	for (const view of [ 'overview', 'vps', 'settings', 'diagnose' ]) {
		await page.goto(`${lab.base}/cgi-bin/luci/admin/services/ds4relay/${view}`);
		await page.waitForSelector('#view h2');
		assert.equal(await page.locator('#view img, #view b').count(), 0, view);
	}

	noErrors(page);
});

test('a relay goes with its forwards', async () => {
	const page = await lab.open('settings', { config: complete });

	await row(page, 'home').locator('.cbi-button-remove').click();
	assert.match(await modal(page).innerText(), /Web server/);
	await modal(page).locator('.cbi-button-negative').click();
	await row(page, 'home').waitFor({ state: 'detached' });
	assert.doesNotMatch((await page.state()).staged, /config/);
	noErrors(page);
});

test('a second relay gets a name, a table of its own, and is checked', async () => {
	const page = await lab.open('settings', { config: complete });
	const name = page.locator('.cbi-section-create-name');

	await name.fill('Much-too-long-a-name');
	await name.blur();
	assert.match(await name.getAttribute('class'), /invalid/);
	await name.fill('second');
	await name.press('Tab');
	await page.locator('#cbi-ds4relay-relay .cbi-button-add').click();
	await modal(page).locator('.cbi-map').waitFor();
	await field(page, 'second', 'ipaddr').fill('203.0.113.5');
	await field(page, 'second', 'peeraddr').fill('2001:db8:5::/64');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	await applied(page);

	const { file } = await page.state();

	assert.match(file, /config relay 'second'[^]*option ip4table '43'/);
	assert.match(check(file), /correct \(relays: 2/);
	noErrors(page);
});

test('a relay changes to WireGuard and back, each with its own fields', async () => {
	const page = await lab.open('settings', { config: complete });
	const tab = (name) => modal(page).locator(`.cbi-tabmenu [data-tab="${name}"] a`).click();
	const shown = async (options) => {
		const all = [ 'ip6addr', 'tunlink', 'public_key', 'endpoint_port', 'listen_port', 'persistent_keepalive',
			'private_key_file', 'preshared_key_file', 'peer', 'encaplimit', 'ttl' ];
		const visible = [];

		for (const option of all)
			if (await modal(page).locator(`[data-name="${option}"]:not(.hidden)`).count())
				visible.push(option);

		assert.deepEqual(visible, all.filter((option) => options.includes(option)));
	};
	const overIPv6 = [ 'ip6addr', 'tunlink', 'encaplimit', 'ttl' ];

	await edit(page, 'home');
	await shown(overIPv6);
	await field(page, 'home', 'transport').selectOption('wireguard');
	await shown([ 'public_key', 'endpoint_port', 'persistent_keepalive', 'private_key_file', 'preshared_key_file' ]);
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).locator('.ds4-problems').waitFor();
	assert.match(await modal(page).locator('.ds4-problems').innerText(), /The other end’s public key/);
	await field(page, 'home', 'public_key').fill('hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=');
	await field(page, 'home', 'peeraddr').fill('198.51.100.144');
	await tab('advanced');
	await field(page, 'home', 'endpoint_port').fill('443');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });

	const { staged } = await page.state();

	assert.match(staged, /option transport 'wireguard'/);
	assert.match(check(staged), /correct \(relays: 1/);

	await edit(page, 'home');
	await field(page, 'home', 'transport').selectOption('ipip6');
	await shown(overIPv6);
	await field(page, 'home', 'peeraddr').fill('2001:db8:6ef9::/64');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	assert.match(check((await page.state()).staged), /correct \(relays: 1/);
	noErrors(page);
});

test('the router makes its key for WireGuard, and the file for the VPS has the public half', async () => {
	const page = await lab.open('vps', {
		config: complete.replace("option peeraddr '2001:db8:6ef9::/64'", [
			"option transport 'wireguard'", "option peeraddr '198.51.100.144'",
			"option public_key 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='"
		].join('\n\t'))
	});

	assert.match(await page.locator('.ds4-alert').innerText(), /This router has no key yet/);
	await page.locator('.ds4-alert .cbi-button-action').click();
	await page.locator('.ds4-steps').waitFor();
	assert.equal(await page.locator('.ds4-alert').count(), 0);

	const file = await page.locator('.ds4-steps pre').last().innerText();

	assert.match(file, /option transport 'wireguard'/);
	assert.match(file, /option public_key '[A-Za-z0-9+/]{43}='/);
	assert.doesNotMatch(file, /hSDwCYkwp1R0i33ctD73Wg2/, 'not the VPS’s own');

	const hints = (await page.locator('.ds4-hint').allInnerTexts()).join('\n');

	assert.match(hints, /let UDP port 51846 in/);
	assert.doesNotMatch(hints, /made of the prefix/, 'the VPS learns where the home is');
	assert.ok((await page.state()).calls.some((call) => /^genkey .*"home"/.test(call)));
	noErrors(page);
});

test('overview: by which of two VPSs what leaves goes, and nothing is cut off', async () => {
	const status = fixture('running'), [ relay ] = status.relays,
	      second = {
		...structuredClone(relay), name: 'second', ipaddr: '198.51.100.200', device: 'ds4-second',
		peer: '2001:db8:6efa:0:198:51:100:200', active: false
	};

	relay.active = true;
	status.relays.push(second);

	for (const [ language, used, reserve ] of [
		[ undefined, 'used now for outgoing traffic', 'stands by for outgoing traffic' ],
		[ 'de', 'jetzt für ausgehenden Verkehr', 'Reserve für ausgehenden Verkehr' ]
	])
		for (const screen of [ {}, { width: 320, touch: true } ]) {
			const setting = { config: pair, language, answers: { 'ds4relay.status': status } },
			      page = await lab.open('overview', setting, screen),
			      drawings = page.locator('svg.ds4-path');

			await drawings.nth(1).waitFor();
			assert.ok((await drawings.nth(0).textContent()).includes(used));
			assert.ok((await drawings.nth(1).textContent()).includes(reserve));
			assert.ok((await drawings.nth(1).getAttribute('aria-label')).includes(reserve));

			// All words are within the drawing, and no line covers another.
			assert.deepEqual(await page.evaluate(() => [ ...document.querySelectorAll('svg.ds4-path') ].flatMap((svg) => {
				const frame = svg.getBoundingClientRect(), seen = [];

				return [ ...svg.querySelectorAll('text') ].filter((node) => {
					const box = node.getBoundingClientRect(),
					      covers = seen.some((one) => box.left < one.right && one.left < box.right &&
						box.top + 3 < one.bottom && one.top + 3 < box.bottom);

					seen.push(box);

					return covers || box.left < frame.left || box.right > frame.right || box.bottom > frame.bottom;
				}).map((node) => node.textContent);
			})), [], `${language} ${screen.width}`);
			noErrors(page);
		}

	// A silent VPS does not stand by.
	const silent = structuredClone(status);

	Object.assign(silent.relays[0], { active: false, other_end: 'silent', heard_s: 200 });
	silent.relays[1].active = true;

	const page = await lab.open('overview', { config: pair, answers: { 'ds4relay.status': silent } });

	await page.locator('svg.ds4-path').nth(1).waitFor();
	assert.doesNotMatch(await page.locator('svg.ds4-path').nth(0).textContent(), /outgoing/);
	assert.match(await page.locator('svg.ds4-path').nth(1).textContent(), /used now for outgoing traffic/);
	noErrors(page);
});

test('overview: a tunnel of WireGuard', async () => {
	const status = fixture('running'),
	      relay = status.relays[0];

	Object.assign(relay, {
		transport: 'wireguard', local: '', peer: '198.51.100.144', endpoint: '198.51.100.144:51846', handshake_s: 24,
		public_key: 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=', mtu: 1420, encaplimit: null
	});

	for (const screen of [ {}, { width: 360, touch: true } ]) {
		const page = await lab.open('overview', { config: complete, answers: { 'ds4relay.status': status } }, screen),
		      drawing = await page.locator('svg.ds4-path').first().textContent();

		assert.match(drawing, /Tunnel \(WireGuard\)/);
		assert.doesNotMatch(drawing, /IPv4 in IPv6|no address yet|undefined|null/);
		assert.equal(drawing.split('198.51.100.144').length, 2, 'the address is there once');
		assert.match(await page.locator('.ds4-alert').innerText(), /It works/);
		noErrors(page);
	}
});

test('all protocols stand alone, and need no port', async () => {
	const page = await lab.open('settings', { config: complete });

	await edit(page, 'Web server');

	const proto = modal(page).locator('[id="cbid.ds4relay.web.proto"]');

	await proto.click();
	await proto.locator('ul.dropdown li[data-value="all"]').click();
	assert.equal(await proto.locator('ul.dropdown li[selected]').count(), 1);
	await modal(page).locator('h4').first().click();
	await field(page, 'web', 'src_dport').waitFor({ state: 'hidden' });
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });

	const { staged } = await page.state();

	assert.match(staged, /list proto 'all'/);
	assert.doesNotMatch(staged, /src_dport '443'/);
	assert.match(check(staged), /correct/);
	noErrors(page);
});

test('a forward without a protocol has the default, and its port', async () => {
	const page = await lab.open('settings', { config: complete });

	await edit(page, 'Web server');

	const proto = modal(page).locator('[id="cbid.ds4relay.web.proto"]');

	await choose(page, proto, 'tcp');
	await modal(page).locator('h4').first().click();
	assert.equal(await proto.locator('ul.dropdown li[selected]').count(), 0);
	await field(page, 'web', 'src_dport').waitFor();
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });

	const { staged } = await page.state();

	assert.match(staged, /src_dport '443'/);
	assert.match(check(staged), /correct/);
	noErrors(page);
});

test('with several relays a new forward asks which one it is of', async () => {
	const page = await lab.open('settings', {
		config: complete + "config relay 'second'\n\toption ipaddr '203.0.113.5'\n\toption peeraddr '2001:db8:5::/64'\n" +
			"\toption ip4table '43'\n"
	});

	await page.locator('#cbi-ds4relay-forward .cbi-button-add').click();
	await modal(page).locator('.cbi-map').waitFor();
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).locator('.ds4-problems').waitFor();
	assert.deepEqual((await modal(page).locator('.ds4-problems li').allTextContents()).map((text) => text.split(':')[0]),
		[ 'Relay', 'External port', 'Internal host' ]);

	const sid = await modal(page).locator('[data-section-id]').first().getAttribute('data-section-id');

	await field(page, sid, 'relay').selectOption('second');
	await field(page, sid, 'src_dport').fill('443');
	await choose(page, modal(page).locator(`[id="cbid.ds4relay.${sid}.dest_ip"]`), '192.168.1.23');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).waitFor({ state: 'hidden' });
	assert.match(check((await page.state()).staged), /correct \(relays: 2, forwards: 3\)/);
	noErrors(page);
});

test('two VPSs that have one public address by turns: a forward of both, and standby on a VPS', async () => {
	const page = await lab.open('settings', {
		config: complete + `
config relay 'spare'
	option ipaddr '198.51.100.144'
	option peeraddr '2001:db8:5::/64'
	option ip4table '43'

config relay 'cabin'
	option role 'vps'
	option ipaddr '203.0.113.5'
	option ip6addr '2001:db8:100::/64'
	option peeraddr '2001:db8:7::/64'
`
	});
	const close = async () => {
		await modal(page).locator('.cbi-button-positive').click();
		await modal(page).waitFor({ state: 'hidden' });
	};

	await edit(page, 'Web server');
	assert.deepEqual(await field(page, 'web', 'relay').locator('option').allTextContents(),
		[ '-- Please choose --', 'home', 'spare', 'cabin', 'home, spare' ]);
	assert.match(await modal(page).locator('[data-name="relay"]').innerText(), /the same public address/);
	await field(page, 'web', 'relay').selectOption('home, spare');
	await close();
	assert.match(await row(page, 'Web server').innerText(), /home, spare/);

	for (const [ relay, visible ] of [ [ 'home', false ], [ 'cabin', true ] ]) {
		await edit(page, relay);
		await modal(page).locator('.cbi-tabmenu [data-tab="advanced"] a').click();
		assert.ok(await modal(page).locator('[data-name="flow_offloading"]').isVisible());
		assert.equal(await modal(page).locator('[data-name="standby"]').isVisible(), visible, relay);

		if (visible)
			await modal(page).locator('[data-name="standby"] input[type="checkbox"]').check();

		await close();
	}

	await saved(page);

	const { staged } = await page.state();

	assert.match(staged, /config forward 'web'\n(\t.*\n)*?\toption relay 'home spare'\n/);
	assert.match(staged, /config relay 'cabin'\n(\t.*\n)*?\toption standby '1'\n/);
	assert.equal(staged.match(/standby/g).length, 1);
	assert.match(check(staged), /correct \(relays: 3, forwards: 2\)/);
	noErrors(page);
});

// Two relays of this router, each with a public address of its own, and the relay of a VPS.
const pair = complete.replace("'2001:db8:6ef9::/64'\n", "'2001:db8:6ef9::/64'\n\toption egress 'all'\n") + `
config relay 'second'
	option ipaddr '198.51.100.200'
	option peeraddr '2001:db8:6efa::/64'
	option ip4table '43'
	option egress 'all'

config relay 'cabin'
	option role 'vps'
	option ipaddr '203.0.113.5'
	option ip6addr '2001:db8:100::/64'
	option peeraddr '2001:db8:7::/64'
	option egress 'replies'

config forward 'second_web'
	option relay 'second'
	list proto 'tcp'
	option src_dport '443'
	option dest_ip '192.168.1.210'

config forward 'second_nas'
	option relay 'second'
	list proto 'tcp'
	option src_dport '8000'
	option dest_ip '192.168.1.23'
`;

test('a backup: another relay of this router, which takes the option with it when it goes', async () => {
	const page = await lab.open('settings', { config: pair }),
	      close = async () => {
		await modal(page).locator('.cbi-button-positive').click();
		await modal(page).waitFor({ state: 'hidden' });
	};
	const dismiss = async () => {
		await modal(page).locator('button', { hasText: 'Dismiss' }).click();
		await modal(page).waitFor({ state: 'hidden' });
	};
	const advanced = async (relay) => {
		await edit(page, relay);
		await modal(page).locator('.cbi-tabmenu [data-tab="advanced"] a').click();
	};

	// One title for both roles: for a relay of a VPS it is the home's end.
	for (const relay of [ 'home', 'cabin' ])
		assert.equal(await row(page, relay).locator('[data-name="peeraddr"]').getAttribute('data-title'),
			'The other end of the tunnel');

	// Without it both relays would have the hosts' own connections.
	assert.match(await page.locator('.ds4-alert').first().innerText(),
		/sends its own connections through relay "home" already/);
	await advanced('cabin');
	assert.equal(await modal(page).locator('[data-name="backup"]').isVisible(), false, 'it is of a VPS');
	await dismiss();

	for (const [ relay, other ] of [ [ 'home', 'second' ], [ 'second', 'home' ] ]) {
		await advanced(relay);
		assert.deepEqual(await field(page, relay, 'backup').locator('option')
			.evaluateAll((options) => options.map((option) => option.value)), [ '', other ], relay);
		await field(page, relay, 'backup').selectOption(other);

		if (relay == 'home')
			await close();
	}

	// Each cannot be the other's.
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).locator('.ds4-problems').waitFor();
	assert.match(await modal(page).locator('.ds4-problems').innerText(),
		/While the VPS is silent: leads back to this relay; allowed is another one/);
	await dismiss();
	await saved(page);

	let { staged } = await page.state();

	assert.match(staged, /config relay 'home'\n(\t.*\n)*?\toption backup 'second'\n/);
	assert.equal(staged.match(/backup/g).length, 1);
	assert.match(check(staged), /correct \(relays: 3, forwards: 4\)/);

	// A backup cannot become the relay of a VPS.
	await advanced('second');
	await field(page, 'second', 'role').selectOption('vps');
	await modal(page).locator('.cbi-tabmenu [data-tab="general"] a').click();
	await field(page, 'second', 'ip6addr').fill('2001:db8:200::/64');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).locator('.ds4-problems').waitFor();
	assert.match(await modal(page).locator('.ds4-problems').innerText(),
		/Relay home, While the VPS is silent: is a relay of a VPS; allowed is one of this router/);
	await dismiss();

	// It goes, with its forwards, and nothing names it any more.
	await row(page, 'second').locator('.cbi-button-remove').click();
	assert.match(await modal(page).innerText(), /These forwards go with relay second/);
	await modal(page).locator('.cbi-button-negative').click();
	await row(page, 'second').waitFor({ state: 'detached' });
	await saved(page);
	({ staged } = await page.state());
	assert.doesNotMatch(staged, /second|backup/);
	assert.match(check(staged), /correct \(relays: 2, forwards: 2\)/);
	noErrors(page);
});

test('overview: a relay that runs, and one that does not', async () => {
	let page = await lab.open('overview', { config: complete, answers: { 'ds4relay.status': fixture('running') } });

	assert.match(await page.locator('.ds4-alert').innerText(), /It works/);
	assert.match(await page.locator('svg.ds4-path').getAttribute('aria-label'),
		/VPS 198\.51\.100\.144 \(works\), tunnel ds4-home \(works\)/);
	assert.match(await page.locator('svg.ds4-path').textContent(), /1\.7 GiB/);
	assert.match(await page.locator('.ds4-forwards').innerText(),
		/Web server[^]*TCP 443[^]*192\.168\.1\.210[^]*nas[^]*14[^]*4\.9 MiB[^]*48211 packets/);
	assert.ok((await page.locator('.ds4-forwards').innerText()).includes("Dad's <b>NAS</b>"));
	await page.waitForFunction(() => /B\/s/.test(document.querySelector('svg.ds4-path').textContent));
	noErrors(page);

	// The other end falls silent, and a host does not answer.
	const silent = fixture('running');

	silent.relays[0].forwards[0].flows.in.packets = 1;
	Object.assign(silent.relays[0], { other_end: 'silent', heard_s: 200 });
	silent.relays[0].forwards[1].host = 'missing';
	await page.change({ config: complete, answers: { 'ds4relay.status': silent } });
	await page.waitForFunction(() => /The other end is silent/.test(document.querySelector('.ds4-alert').innerText));
	assert.match(await page.locator('.ds4-alert').innerText(), /last heard of 3 min ago/);
	assert.match(await page.locator('svg.ds4-path').getAttribute('aria-label'),
		/\(does not work\), tunnel ds4-home \(does not work\)[^]*192\.168\.1\.23[^,]*no answer/);
	assert.match(await page.locator('svg.ds4-path').textContent(), /✕ 192\.168\.1\.23 \(raspberrypi\)/);
	assert.match(await page.locator('.ds4-forwards').innerText(),
		/192\.168\.1\.210[^]*answers[^]*\b1 packet\s[^]*does not answer/);
	noErrors(page);

	// Nothing works while no host answers.
	const deserted = fixture('running');

	deserted.relays[0].forwards.forEach((forward) => { forward.host = 'missing'; });
	await page.change({ config: complete, answers: { 'ds4relay.status': deserted } });
	await page.waitForFunction(() => /No server at home answers/.test(document.querySelector('.ds4-alert.error')?.innerText));
	noErrors(page);

	// The program itself: nothing is installed on this router yet.
	page = await lab.open('overview', { config: complete });
	assert.match(await page.locator('.ds4-guide').innerText(), /The router is not as the configuration says/);
	assert.equal(await page.locator('.ds4-pipe.ds4-bad').count(), 1);
	await page.locator('.ds4-guide summary').click();
	assert.match(await page.locator('.ds4-guide pre').innerText(), /ip link add name ds4-home/);
	await page.locator('.ds4-guide .cbi-button-action').click();
	await page.waitForFunction(() => !document.querySelector('.ds4-guide .cbi-button-action').disabled);
	assert.ok((await page.state()).calls.some((call) => /^control .*"reload"/.test(call)));
	noErrors(page);

	page = await lab.open('overview', {
		config: complete.replace("dest_ip '192.168.1.23'", "dest_ip '300.1.1.1'").replace('198.51.100.144', '10.0.0.1')
	});
	assert.match(await page.locator('.ds4-alert').innerText(),
		/The configuration has mistakes[^]*Relay home, Public IPv4 address "10\.0\.0\.1": allowed is/);
	assert.match(await page.locator('.ds4-alert').innerText(),
		/Forward Dad's <b>NAS<\/b>, Internal host "300\.1\.1\.1": allowed is/);
	assert.equal(await page.locator('.ds4-alert li').count(), 2);
	noErrors(page);

	page = await lab.open('overview', { config: complete, answers: { 'ds4relay.status': fixture('broken') } });
	assert.match(await page.locator('.ds4-guide').innerText(), /step 1 of 3[^]*waits for/);
	noErrors(page);
});

// A relay that no client has used: its status, changed.
function unused(change) {
	const status = fixture('running'), [ relay ] = status.relays;

	relay.served = false;
	Object.assign(relay.counters, { rx_bytes: 840, rx_packets: 10, tx_bytes: 840, tx_packets: 10 });
	relay.forwards.forEach(({ flows }) => { flows.answered = 0; });
	change?.(relay, status);

	return { config: complete, answers: { 'ds4relay.status': status } };
}

function unheard(relay) {
	delete relay.heard_s;
	relay.other_end = 'silent';
}

const current = (page) => page.locator('.ds4-todo[aria-current="step"]');

// Waits for the step that the overview is at.
async function reaches(page, title) {
	await page.waitForFunction((text) =>
		document.querySelector('.ds4-todo[aria-current="step"] strong')?.textContent == text, title);
}

test('overview: three steps lead to a relay that works', async () => {
	const page = await lab.open('overview', {
		config: complete, answers: { 'ds4relay.status': fixture('broken') }
	});

	await reaches(page, 'This router');
	assert.match(await current(page).innerText(), /waits for[^]*Find out why/);

	await page.change(unused(unheard));
	await reaches(page, 'The VPS');
	assert.match(await current(page).innerText(), /On the VPS, as root, run what the tab VPS shows[^]*Set up the VPS/);
	assert.equal(await page.locator('.ds4-todo.ds4-done').count(), 1);
	assert.equal(await current(page).locator('.important').count(), 1);
	assert.equal(await page.locator('.ds4-alert').count(), 0, 'the steps are the message');

	await page.change(unused());
	await reaches(page, 'The first client');
	assert.match(await current(page).innerText(), /Wi-Fi off, open https:\/\/198\.51\.100\.144\/ in a browser[^]*Find out why/);
	assert.equal(await page.locator('.ds4-todo.ds4-done').count(), 2);
	assert.match(await page.locator('svg.ds4-path').getAttribute('aria-label'), /tunnel ds4-home \(works\)/);

	await page.change(unused((relay) => { relay.forwards[0].flows.answered = 1; }));
	await page.locator('.ds4-alert.success').waitFor();
	assert.equal(await page.locator('.ds4-guide').count(), 0);

	// The connection has ended: the page goes on as before until the program has noted it.
	await page.change(unused());
	await page.waitForResponse((response) => response.url().includes('/ubus'));
	assert.equal(await page.locator('.ds4-guide').count(), 0);
	noErrors(page);

	// Another browser knows what the program has noted.
	const other = await lab.open('overview', unused((relay) => { relay.served = true; }));

	await other.locator('.ds4-alert.success').waitFor();
	noErrors(other);

	// A user may have seen a client that the page cannot see. The browser remembers the button.
	const third = await lab.open('overview', unused());

	await reaches(third, 'The first client');
	await third.locator('button', { hasText: 'I have tried it' }).click();
	await third.locator('.ds4-alert.success').waitFor();
	await third.reload();
	await third.locator('.ds4-alert.success').waitFor();
	noErrors(third);

	// An end that has been heard is set up. Its silence is a fault, also before the first client.
	const fourth = await lab.open('overview', unused((relay) => Object.assign(relay, { other_end: 'silent', heard_s: 200 })));

	await fourth.locator('.ds4-alert.error').waitFor();
	assert.match(await fourth.locator('.ds4-alert').innerText(), /The other end is silent[^]*last heard of 3 min ago/);
	assert.equal(await fourth.locator('.ds4-guide').count(), 0);
	noErrors(fourth);

	// A router that forgets the relay at its next start is not finished.
	const fifth = await lab.open('overview', { ...unused(), enabled: false });

	await reaches(fifth, 'This router');
	await current(fifth).locator('button', { hasText: 'Start at boot' }).click();
	await reaches(fifth, 'The first client');
	noErrors(fifth);
});

test('overview: two relays have steps of their own, and a user who may read sees them', async () => {
	const page = await lab.open('overview', {
		...unused((relay, status) => {
			status.relays.push({ ...structuredClone(relay), name: 'second', ipaddr: '198.51.100.7' });
			unheard(status.relays[1]);
			relay.forwards[0].flows.answered = 1;
		}), readonly: true
	});

	assert.match(await page.locator('.ds4-guide').innerText(), /Relay second: Setting up: step 2 of 3/);
	assert.equal(await page.locator('.ds4-alert').count(), 0, 'not green');

	noErrors(page);

	const one = await lab.open('overview', {
		...unused((relay, status) => { status.differs = [ 'ip link set dev ds4-home up' ]; }), readonly: true
	});

	await reaches(one, 'This router');
	assert.ok(await current(one).locator('button').isDisabled());
	noErrors(one);
});

test('overview: the traffic of the last minutes is drawn', async () => {
	const status = fixture('running'), later = structuredClone(status);

	later.relays[0].counters.tx_bytes += 50e6;
	later.relays[0].forwards[0].flows.out.bytes += 40e6;
	later.relays[0].forwards[1].flows.out.bytes = 0;

	const page = await lab.open('overview', { config: complete, answers: { 'ds4relay.status': status } });

	await page.change({ config: complete, answers: { 'ds4relay.status': later } });
	await page.locator('.ds4-traffic .ds4-graph polyline').first().waitFor();
	assert.match(await page.locator('.ds4-traffic').innerText(), /At most: [\d.]+ MiB\/s/);
	assert.deepEqual(await page.locator('.ds4-small strong').allTextContents(), [ 'Web server' ]);
	assert.match(await page.locator('.ds4-small svg').getAttribute('aria-label'), /^Web server: .*at most [\d.]+ MiB\/s in the last 5 minutes/);

	// A visit to another tab leaves no hole.
	await page.reload();
	await page.locator('.ds4-traffic .ds4-graph polyline').first().waitFor({ timeout: 2000 });
	noErrors(page);
});

test('overview: start, stop, enable', async () => {
	const page = await lab.open('overview', {
		config: complete, started: false, enabled: false, answers: { 'ds4relay.status': fixture('running') }
	});

	assert.match(await page.locator('.ds4-alert').innerText(), /DS4Relay is stopped/);
	await page.locator('.ds4-alert button').click();
	await page.waitForFunction(() => /not after a restart/.test(document.querySelector('.ds4-alert').innerText));
	await page.locator('.ds4-alert button').click();
	await page.waitForFunction(() => /It works/.test(document.querySelector('.ds4-alert').innerText));
	await page.locator('.ds4-service button', { hasText: 'Stop' }).click();
	await page.waitForFunction(() => /stopped/.test(document.querySelector('.ds4-alert').innerText));
	noErrors(page);
});

test('overview: a relay is switched off and on', async () => {
	const status = fixture('running'), answers = { 'ds4relay.status': status };
	const page = await lab.open('overview', { config: complete, answers });

	await page.locator('.ds4-relay button').click();
	await modal(page).locator('.cbi-button-apply, .cbi-button-positive.important').first().waitFor();
	assert.match(await modal(page).innerText(), /enabled/);
	assert.match((await page.state()).staged, /config relay 'home'[^]*option enabled '0'/);
	assert.doesNotMatch((await page.state()).file, /enabled/, 'not before it is confirmed');
	noErrors(page);
});

test('overview: the tunnel is among LuCI’s own interfaces, with its counters', async () => {
	const status = fixture('running'),
	      counters = { rx_bytes: 1843920113, rx_packets: 1503377, tx_bytes: 23190227344, tx_packets: 17220391 };
	const page = await lab.open('overview', {
		config: complete, network: true,
		answers: {
			'ds4relay.status': status,
			'network.get_proto_handlers': { static: {}, none: {} },
			'luci-rpc.getNetworkDevices': {
				...home.answers['luci-rpc.getNetworkDevices'],
				'ds4-home': { name: 'ds4-home', up: true, type: 769, devtype: 'tunnel', flags: { up: true }, stats: counters }
			},
			'file.read': { data: '' }
		},
		ubus: { 'network.interface.dump': {
			interface: [ {
				interface: 'ds4_home', up: true, dynamic: true, l3_device: 'ds4-home', device: 'ds4-home', proto: 'none', uptime: 60
			} ]
		} }
	});

	await page.locator('a', { hasText: 'Interfaces' }).click();
	await page.locator('tr[data-sid="ds4_home"]').waitFor();
	await page.waitForFunction(() =>
		/1\.84 GB \(1503377/.test(document.querySelector('tr[data-sid="ds4_home"]').textContent));
	assert.match(await page.locator('tr[data-sid="ds4_home"]').textContent(), /ds4-home[^]*Virtual dynamic interface/);
});

test('overview: a first visit leads to the settings', async () => {
	const page = await lab.open('overview');

	assert.match(await page.locator('.ds4-alert').innerText(), /Nothing is set up yet/);
	await page.locator('.ds4-alert a').click();
	await page.waitForSelector('#ds4-invitation');
	noErrors(page);
});

// What the VPS tab has to paste, run by a shell on a machine of its own; returns its files by their names.
function paste(text, files = {}) {
	const directory = mkdtempSync(join(tmpdir(), 'vps-')),
	      etc = join(directory, 'config'), bin = join(directory, 'bin');

	for (const made of [ etc, bin ])
		mkdirSync(made);

	for (const name in files)
		writeFileSync(join(etc, name), files[name]);

	writeFileSync(join(bin, 'ds4relay'), `#!/bin/sh\nexec ${process.env.DS4RELAY_BINARY} "$@"\n`, { mode: 0o755 });
	writeFileSync(join(bin, 'apt'), '#!/bin/sh\n', { mode: 0o755 });
	writeFileSync(join(bin, 'systemctl'), `#!/bin/sh\necho "$@" >>${etc}/started\n`, { mode: 0o755 });
	spawnSync('sh', [], {
		input: text.replaceAll('/etc/config', etc), env: { PATH: `${bin}:${process.env.PATH}` }
	});

	return Object.fromEntries(readdirSync(etc).map((name) => [ name, readFileSync(join(etc, name), 'utf8') ]));
}

// Presses the button that copies everything, and returns the clipboard.
async function copyAll(page) {
	const button = page.locator('.ds4-copy', { hasText: 'Copy all' });

	await button.locator('button').click();
	await button.getByText('Copied').waitFor();

	return page.evaluate(() => (window.held ?? navigator.clipboard).readText());
}

test('VPS: one command writes the file, checks it and starts it', async () => {
	const page = await lab.open('vps', { config: complete }, { permissions: [ 'clipboard-read', 'clipboard-write' ] });
	const steps = page.locator('.ds4-step');

	assert.equal(await steps.count(), 2);

	const text = await steps.nth(1).locator('pre').textContent();

	assert.doesNotMatch(text, /\t/);
	assert.match(text, /option name 'Dad'\\''s <b>NAS<\/b>'/);
	assert.match(text, /option peeraddr '2001:db8:100:0:198:51:100:144'/);
	await steps.nth(1).locator('button').click();
	await steps.nth(1).getByText('Copied').waitFor();
	assert.equal(await page.evaluate(() => navigator.clipboard.readText()), text);

	const files = paste(text, { ds4relay: 'before' });

	assert.equal(files['ds4relay.old'], 'before');
	assert.match(check(files.ds4relay), /correct \(relays: 1, forwards: 2\)/);
	assert.match(files.started, /enable ds4relay\nreload-or-restart ds4relay/);

	// All at once: the file is written only if the package could be installed.
	const all = await copyAll(page);

	assert.ok(all.startsWith('apt install ./ds4relay_*.deb &&\n') && all.endsWith(text));
	assert.match(check(paste(all).ds4relay), /correct \(relays: 1, forwards: 2\)/);
	assert.deepEqual(paste(all.replace('apt install', 'false')), {});

	// Over http there is no clipboard, and the clipboard may be refused.
	await page.evaluate(() => {
		window.held = navigator.clipboard;
		Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true });
	});
	await page.evaluate(() => window.held.writeText('nothing'));
	assert.equal(await copyAll(page), all);
	await page.evaluate(() => {
		Object.defineProperty(navigator, 'clipboard', { value: { writeText: () => Promise.reject(new Error()) } });
		document.execCommand = () => false;
	});
	await page.locator('.ds4-copy button', { hasText: 'Copy all' }).click();
	await page.getByText('It is marked now').waitFor();
	assert.equal(await page.evaluate(() => {
		const area = document.activeElement;

		return area.value.slice(area.selectionStart, area.selectionEnd);
	}), all);

	// A file with a mistake stays beside the one that runs.
	const wrong = paste(text.replace("role 'vps'", "role 'x'"), { ds4relay: 'before' });

	assert.deepEqual(Object.keys(wrong), [ 'ds4relay', 'ds4relay.new' ]);
	assert.equal(wrong.ds4relay, 'before');
	noErrors(page);
});

test('VPS: two relays of one VPS are one file, and another VPS has its own', async () => {
	const relay = (name, ipaddr, peeraddr, table) => `
config relay '${name}'
	option ipaddr '${ipaddr}'
	option peeraddr '${peeraddr}'
	option ip4table '${table}'
	list keep 'tcp:22'

config forward
	option relay '${name}'
	option proto 'tcp'
	option src_dport '443'
	option dest_ip '192.168.1.210'
`;
	const page = await lab.open('vps', { config: [
		relay('home', '198.51.100.144', '2001:db8:6ef9::/64', 42), relay('other', '198.51.100.7', '2001:db8:77::1', 43),
		relay('second', '198.51.100.145', '2001:db8:6ef9::5', 44), relay('off', '198.51.100.8', '2001:db8:8::/64', 45)
			.replace('option ipaddr', "option enabled '0'\n\toption ipaddr")
	].join('') });

	assert.deepEqual(await page.locator('h3').allTextContents(), [ 'Relays home, second', 'Relay other' ]);

	const files = paste(await page.locator('.ds4-step pre').nth(1).textContent());

	assert.match(check(files.ds4relay), /correct \(relays: 2, forwards: 2\)/);

	// One of them with WireGuard: the VPS is known by its public address.
	const both = await lab.open('vps', { config: [
		relay('home', '198.51.100.144', '2001:db8:6ef9::/64', 42), relay('other', '198.51.100.7', '2001:db8:77::1', 43),
		relay('second', '198.51.100.144', '198.51.100.144', 44).replace("dport '443'", "dport '80'").replace('option ipaddr',
			"option transport 'wireguard'\n\toption public_key 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='\n\toption ipaddr")
	].join('') });

	await both.locator('.ds4-alert .cbi-button-action').click();
	await both.locator('.ds4-steps').nth(1).waitFor();
	assert.deepEqual(await both.locator('h3').allTextContents(), [ 'Relays home, second', 'Relay other' ]);
	assert.match(check(paste(await both.locator('.ds4-step pre').nth(1).textContent()).ds4relay),
		/correct \(relays: 2, forwards: 2\)/);
	noErrors(page);
});

test('diagnose: the checks run one after the other', async () => {
	const checks = [
		{ id: 'config', relay: '', title: 'Configuration', needs: [] },
		{ id: 'peer', relay: 'home', title: 'The other end is reached over IPv6', needs: [ 'config' ] },
		{ id: 'tunnel', relay: 'home', title: 'IPv4 in IPv6 (protocol 4) passes both ways', needs: [ 'peer' ] },
		{ id: 'mtu', relay: 'home', title: 'Packets of full size pass both ways', needs: [ 'tunnel' ] },
		{ id: 'forward', relay: 'home', title: 'This machine forwards a client\'s packet', needs: [ 'config' ] }
	];
	const answers = { 'ds4relay.doctor.': { checks } };

	answers['ds4relay.doctor.config'] = { ...checks[0], state: 'ok', evidence: 'no mistakes', remedy: '' };
	answers['ds4relay.doctor.peer'] = {
		...checks[1], state: 'failed', evidence: 'no answer from <b>', remedy: 'start the relay on the VPS'
	};
	answers['ds4relay.doctor.forward'] = { ...checks[4], state: 'skipped', evidence: '', remedy: '' };

	const page = await lab.open('diagnose', { config: complete, answers });

	assert.equal(await page.locator('.ds4-check.ds4-waiting').count(), 5);
	assert.ok(!(await page.state()).calls.some((call) => /^doctor .*"check":"\w/.test(call)), 'nobody has asked');
	await page.locator('button', { hasText: 'Run the checks' }).click();
	await page.waitForFunction(() => document.querySelector('.ds4-progress').value == 5);
	assert.deepEqual(
		await page.locator('.ds4-check').evaluateAll((rows) => rows.map((one) => one.className.split(' ')[1])),
		[ 'ds4-ok', 'ds4-failed', 'ds4-skipped', 'ds4-skipped', 'ds4-skipped' ]);

	for (const row_ of [ 2, 3 ])
		assert.match(await page.locator('.ds4-check').nth(row_).innerText(), /needs: The other end is reached over IPv6/);

	assert.match(await page.locator('.ds4-alert').innerText(),
		/The other end is not reached over IPv6[^]*Start the relay on the VPS/);
	assert.ok((await page.locator('.ds4-checks').innerText()).includes('no answer from <b>'));
	await page.locator('button', { hasText: 'Check again' }).click();
	await page.waitForFunction(() => document.querySelector('.ds4-progress').value == 5);

	const asked = (await page.state()).calls.filter((call) => /^doctor .*"check":"\w/.test(call))
		.map((call) => /"check":"(\w+)"/.exec(call)[1]);

	assert.deepEqual(asked, [ 'config', 'peer', 'forward', 'config', 'peer', 'forward' ]);
	noErrors(page);
});

test('diagnose: a remedy that is one click is a button, and all is checked again', async () => {
	const installed = { id: 'installed', relay: '', title: 'The kernel is as configured' };
	const code = 'run `ds4relay up`; if it comes back, another program takes it away';
	const failed = {
		...installed, state: 'failed', evidence: 'missing or changed: ip link add', remedy: code,
		codes: {
			evidence: { code: 'missing or changed: %s', args: [ 'ip link add' ] }, remedy: { code }
		}
	};
	const setting = (finding) => ({
		config: complete, answers: { 'ds4relay.doctor.': { checks: [ installed ] }, 'ds4relay.doctor.installed': finding }
	});
	const page = await lab.open('diagnose#run', setting(failed));

	await page.locator('.ds4-alert button').waitFor();
	assert.match(await page.locator('.ds4-alert').innerText(), /The kernel is not as configured/);
	await page.locator('.ds4-check button', { hasText: 'Set it right' }).click();
	await until(async () => (await page.state()).calls.filter((call) => /"check":"installed"/.test(call)).length == 2);
	assert.ok((await page.state()).calls.some((call) => /^control .*"reload"/.test(call)));
	await page.locator('.ds4-alert button').waitFor();
	await page.change(setting({ ...installed, state: 'ok', evidence: '', remedy: '' }));
	await page.locator('.ds4-alert button').click();
	await page.locator('.ds4-alert.success').waitFor();
	noErrors(page);

	// Who may only read sees the button, and cannot press it.
	const reading = await lab.open('diagnose', {
		config: complete, readonly: true, answers: {
			'ds4relay.status': { ...fixture('running'), differs: [ 'ip link set dev ds4-home up' ] }
		}
	});

	await reading.locator('.ds4-check button').waitFor();
	assert.ok(await reading.locator('.ds4-check button').isDisabled());
	noErrors(reading);
});

test('overview: the only relay is switched on by a button', async () => {
	const page = await lab.open('overview', {
		config: complete.replace("'home'\n", "'home'\n\toption enabled '0'\n").replace('198.51.100.144', '8.8.8.8')
	});

	assert.match(await page.locator('.ds4-alert').innerText(), /No relay is switched on/);
	await page.locator('.ds4-alert button', { hasText: 'Switch on' }).click();
	await modal(page).locator('.cbi-button-apply, .cbi-button-positive.important').first().waitFor();
	assert.match((await page.state()).staged, /config relay 'home'[^]*option enabled '1'/);
	noErrors(page);
});

test('a user who may read sees all, and can change nothing', async () => {
	const setting = { config: complete, readonly: true };
	let page = await lab.open('settings', setting);

	for (const selector of [
		'.cbi-button-save', '.cbi-button-apply', '.cbi-button-remove', '.cbi-button-add', '.drag-handle',
		'tr input[type="checkbox"]'
	])
		for (const element of await page.locator(selector).all())
			assert.ok(await element.isDisabled() || await element.getAttribute('disabled') != null, selector);

	await edit(page, 'Web server');
	assert.ok(await field(page, 'web', 'src_dport').isDisabled());
	assert.ok(await modal(page).locator('.cbi-button-positive').isDisabled());
	noErrors(page);

	page = await lab.open('overview', { ...setting, answers: { 'ds4relay.status': fixture('running') } });
	assert.match(await page.locator('.ds4-alert').innerText(), /It works/);

	for (const button of await page.locator('.ds4-service button, .ds4-relay button').all())
		assert.ok(await button.isDisabled());

	noErrors(page);

	page = await lab.open('vps', setting);
	assert.equal(await page.locator('.ds4-step').count(), 2);
	noErrors(page);

	// The checks send packets: they are not asked for.
	page = await lab.open('diagnose', { ...setting, answers: { 'ds4relay.status': fixture('running') } });
	await page.waitForSelector('.ds4-check');
	assert.match(await page.locator('.ds4-alert').first().innerText(), /you may read only/);
	assert.match(await page.locator('.ds4-alert.success').innerText(), /Everything is in order/);
	assert.match(await page.locator('.ds4-checks').innerText(), /The other end answers[^]*The hosts at home answer/);
	assert.deepEqual((await page.state()).calls.filter((call) => /^doctor /.test(call)), []);
	noErrors(page);

	const silent = fixture('running');

	silent.relays[0].other_end = 'silent';
	silent.relays.push({ ...silent.relays[0], name: 'second', other_end: 'heard' });
	page = await lab.open('diagnose', { ...setting, answers: { 'ds4relay.status': silent } });
	await page.locator('.ds4-alert.error').waitFor();
	assert.match(await page.locator('.ds4-alert.error').innerText(), /^Relay home: The other end is silent/);
	noErrors(page);
});

// Texts of the catalogue that a page shows in English, though they have another translation.
async function english(page) {
	const shown = await page.locator('#view').evaluate((view) => {
		const texts = [], all = [ view, ...view.querySelectorAll('*'), ...document.querySelectorAll('.modal *') ];

		// Commands and files are the same in every language.
		for (const node of all.filter((one) => !one.closest('pre'))) {
			for (const child of node.childNodes)
				if (child.nodeType == Node.TEXT_NODE)
					texts.push(child.data.trim());

			for (const name of [ 'title', 'aria-label', 'placeholder' ])
				texts.push(node.getAttribute(name)?.trim() ?? '');
		}

		return texts.filter((text) => text != '');
	});
	const found = [];

	// The forward's name in the configuration is what its owner has typed.
	for (const { id, text } of read(ours('de')))
		if (text != id && /[a-z]{3}/.test(id) && id != 'Web server') {
			const pattern = id.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&').replace(/%(?:\\\[\d+\\\])?[sdqv]/g, '.+'),
			      whole = new RegExp(/ .* /.test(id) ? pattern : '^' + pattern + '$');

			found.push(...shown.filter((one) => whole.test(one)));
		}

	return found;
}

test('German: no text of the app is in English, on any tab', async () => {
	assert.deepEqual(conflicts('de', base(process.env.DS4RELAY_LUCI, 'de')), [], 'LuCI has texts of ours');

	for (const [ view, setting ] of [
		[ 'settings', { config: complete } ], [ 'settings', { config: example } ], [ 'overview', { config: example } ],
		[ 'overview', { config: complete } ], [ 'vps', { config: complete } ], [ 'vps', { config: example } ],
		[ 'overview', { config: complete, answers: { 'ds4relay.status': fixture('running') } } ],
		[ 'overview', unused() ], [ 'overview', unused(unheard) ],
		[ 'diagnose', { config: complete, readonly: true } ]
	]) {
		const page = await lab.open(view, { ...setting, language: 'de' });

		assert.equal(await page.locator('html').getAttribute('lang'), 'de');
		assert.deepEqual(await english(page), [], view);
		noErrors(page);
	}

	// The program's own checks.
	const diagnose = await lab.open('diagnose#run', { config: complete, language: 'de' });

	await diagnose.locator('.ds4-alert').waitFor();
	assert.deepEqual(await english(diagnose), []);
	assert.match(await diagnose.locator('.ds4-checks').innerText(), /in Ordnung/);
	noErrors(diagnose);

	const waiting = await lab.open('overview', {
		config: complete, answers: { 'ds4relay.status': fixture('broken') }, language: 'de'
	});

	assert.match(await waiting.locator('.ds4-guide').innerText(), /Das Relay "home" wartet auf [^]*wan6/);
	noErrors(waiting);

	const page = await lab.open('settings', { config: complete, language: 'de' });

	await edit(page, 'home');
	assert.deepEqual(await english(page), []);
	await modal(page).locator('button', { hasText: 'Verwerfen' }).click();
	await modal(page).waitFor({ state: 'hidden' });
	await edit(page, 'Web server');
	assert.deepEqual(await english(page), []);
	await field(page, 'web', 'src_dport').fill('8005');
	await modal(page).locator('.cbi-button-positive').click();
	await modal(page).locator('.ds4-problems').waitFor();
	assert.match(await modal(page).locator('.ds4-problems').innerText(),
		/Externer Port: überschneidet sich mit der Weiterleitung "Web server"/);
	noErrors(page);
});

test('360 px: nothing is cut off', async () => {
	for (const view of [ 'overview', 'settings', 'vps', 'diagnose' ]) {
		const page = await lab.open(view, {
			config: complete, answers: { 'ds4relay.status': fixture('running') }
		}, { width: 360, touch: true });

		await page.waitForTimeout(300);

		const wide = await page.evaluate(() => [
			document.documentElement.scrollWidth,
			...[ ...document.querySelectorAll('#view *') ]
				.filter((node) => !node.closest('svg') && node.getBoundingClientRect().right > 361)
				.map((node) => node.outerHTML.slice(0, 100))
		]);

		assert.deepEqual(wide, [ 360 ], view);
		noErrors(page);
	}
});

test('every control has a name for a screen reader', async () => {
	const unnamed = (page) => page.evaluate(() => [ ...document.querySelectorAll(
		'#view input:not([type="hidden"]), #view select, #view button, #view .cbi-dropdown, ' +
		'.modal input:not([type="hidden"]), .modal select, .modal button, .modal .cbi-dropdown') ]
		.filter((node) => node.checkVisibility() && !node.closest('.preview'))
		.filter((node) => !node.getAttribute('aria-label') &&
			!(node.labels?.length && [ ...node.labels ].some((label) => label.textContent.trim())) &&
			!node.textContent.trim())
		.map((node) => node.outerHTML.slice(0, 160)));

	for (const view of [ 'overview', 'settings', 'vps', 'diagnose' ]) {
		const page = await lab.open(view, { config: complete, answers: { 'ds4relay.status': fixture('running') } });

		assert.deepEqual(await unnamed(page), [], view);
	}

	const page = await lab.open('settings', { config: complete });

	await edit(page, 'Web server');
	assert.deepEqual(await unnamed(page), []);
	await modal(page).locator('button', { hasText: 'Dismiss' }).click();
	await edit(page, 'home');
	assert.deepEqual(await unnamed(page), []);
});
