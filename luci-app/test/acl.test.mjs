// The rights: reading for who may read, and exactly the writes that the pages need.
import test from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';

const app = new URL('../luci-app-ds4relay/', import.meta.url);
const read = (name) => readFileSync(new URL(name, app), 'utf8');
const acl = JSON.parse(read('root/usr/share/rpcd/acl.d/luci-app-ds4relay.json'))['luci-app-ds4relay'];
const menu = JSON.parse(read('root/usr/share/luci/menu.d/luci-app-ds4relay.json'));
const asked = [ ...read('htdocs/luci-static/resources/ds4relay/api.js').matchAll(/declare\('(\w+)'/g) ]
	.map((m) => m[1]);
const offered = Object.keys(JSON.parse(
	execFileSync(process.env.DS4RELAY_BINARY, [ 'rpcd', 'list' ], { encoding: 'utf8' })));

test('nothing runs programs, and no file is read or written', () => {
	for (const permission of [ 'read', 'write' ])
		assert.deepEqual(Object.keys(acl[permission]).sort(), [ 'ubus', 'uci' ], permission);

	assert.doesNotMatch(JSON.stringify(acl), /exec|\*/);
});

test('what is written is the configuration, and the state of this one service; ' +
	'its test packets, its keys and joining a VPS are a right to write too', () => {
	assert.deepEqual(acl.write, {
		ubus: { ds4relay: [ 'control', 'doctor', 'genkey', 'invitation', 'join' ] }, uci: [ 'ds4relay' ]
	});
});

test('the pages are granted what they ask, and no more', () => {
	const granted = acl.read.ubus.ds4relay.concat(acl.write.ubus.ds4relay);

	assert.deepEqual(granted.sort(), asked.sort());
});

test('the program offers what the pages ask', () => {
	/* The check-up is optional: without it the page shows the status. */
	for (const method of asked.filter((one) => one != 'doctor'))
		assert.ok(offered.includes(method), method);
});

test('each entry of the menu has its view', () => {
	for (const [ path, entry ] of Object.entries(menu))
		if (entry.action.type == 'view')
			assert.ok(read(`htdocs/luci-static/resources/view/${entry.action.path}.js`), path);

	assert.deepEqual(menu['admin/services/ds4relay'].depends.acl, [ 'luci-app-ds4relay' ]);
});
