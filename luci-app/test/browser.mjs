// A browser on LuCI's own pages, with the app's views and the program behind them.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const { chromium } = createRequire(process.env.DS4RELAY_NODE + '/')('playwright-core');

export const fixture = (name) =>
	JSON.parse(readFileSync(fileURLToPath(new URL(`fixtures/${name}.json`, import.meta.url))));
export const example = readFileSync(
	fileURLToPath(new URL('../../files/openwrt/etc/config/ds4relay', import.meta.url)), 'utf8');

// A home with three hosts, one of them with a name, and a provider that delegates a prefix.
export const home = {
	answers: {
		'luci-rpc.getHostHints': {
			'AA:BB:CC:00:00:01': { ipaddrs: [ '192.168.1.210' ], name: 'nas' },
			'AA:BB:CC:00:00:02': { ipaddrs: [ '192.168.1.23' ], name: 'raspberrypi' },
			'AA:BB:CC:00:00:03': { ipaddrs: [ '192.168.1.40' ] },
			'AA:BB:CC:00:00:FE': { ipaddrs: [ '100.64.0.1' ] }, // the provider's gateway
			'AA:BB:CC:00:00:FF': { ipaddrs: [ '192.168.1.1' ] } // the router itself
		},
		'luci-rpc.getNetworkDevices': {
			'br-lan': { name: 'br-lan', up: true, type: 1, devtype: 'bridge', flags: { up: true }, stats: {} },
			'pppoe-wan': { name: 'pppoe-wan', up: true, type: 512, flags: { up: true }, stats: {} }
		},
		'luci.getFeatures': { firewall4: true }
	},
	ubus: {
		'network.interface.dump': {
			interface: [
				{
					interface: 'lan', up: true, l3_device: 'br-lan', device: 'br-lan', proto: 'static',
					'ipv4-address': [ { address: '192.168.1.1', mask: 24 } ]
				},
				{
					interface: 'wan', up: true, l3_device: 'pppoe-wan', device: 'eth1', proto: 'pppoe',
					'ipv4-address': [ { address: '100.64.0.7', mask: 10 } ],
					route: [ { target: '0.0.0.0', mask: 0, nexthop: '100.64.0.1', source: '0.0.0.0/0' } ]
				},
				{
					interface: 'wan6', up: true, l3_device: 'pppoe-wan', device: 'eth1', proto: 'dhcpv6',
					'ipv6-prefix': [ { address: '2001:db8:100::', mask: 56 } ]
				}
			]
		}
	}
};

export async function start() {
	const root = mkdtempSync(join(tmpdir(), 'lucitest-'));
	const server = spawn(process.env.DS4RELAY_LUCITEST_SERVER, [
		'-luci', process.env.DS4RELAY_LUCI, '-program', process.env.DS4RELAY_BINARY, '-root', root
	], { stdio: [ 'ignore', 'pipe', 'inherit' ] });
	const [ base ] = await new Promise((resolve, reject) => {
		createInterface(server.stdout).once('line', (line) => resolve([ line ]));
		server.once('exit', () => reject(new Error('the server ended')));
	});
	const browser = await chromium.launch({
		executablePath: process.env.DS4RELAY_CHROMIUM ?? '/usr/bin/chromium', args: [ '--no-sandbox' ]
	});

	const contexts = [];

	return {
		base,

		// A page of the app, with a router that is set up so. `errors` collects what the page's console complains of.
		async open(view, setting = {}, options = {}) {
			const context = await browser.newContext({
				viewport: { width: options.width ?? 1100, height: 900 }, hasTouch: !!options.touch,
				isMobile: !!options.touch, permissions: options.permissions ?? []
			});

			// A page takes half a minute on a computer that runs the lab beside it.
			context.setDefaultTimeout(180000);

			const page = await context.newPage();
			const errors = [];

			contexts.push(context);

			page.on('pageerror', (err) => errors.push(err.message));
			page.on('console', (message) => {
				if (message.type() == 'error' && !/favicon|404/.test(message.text()))
					errors.push(message.text());
			});

			const change = async (next) => {
				const response = await page.request.post(base + '/test/set', {
					data: {
						config: example, started: true, enabled: true, ...next,
						answers: { ...home.answers, ...next.answers }, ubus: { ...home.ubus, ...next.ubus }
					}
				});

				if (!response.ok())
					throw new Error(await response.text());
			};

			await change(setting);
			await page.goto(`${base}/cgi-bin/luci/admin/services/ds4relay/${view}`);
			await page.waitForSelector('#view h2');

			return Object.assign(page, {
				errors, change, state: async () => (await page.request.get(base + '/test/state')).json()
			});
		},

		// Closes all pages: an open one goes on asking the program for its status.
		async closePages() {
			await Promise.all(contexts.splice(0).map((context) => context.close()));
		},

		async stop() {
			await browser.close();
			server.kill();
			await new Promise((resolve) => server.once('exit', resolve));
			rmSync(root, { recursive: true, force: true });
		}
	};
}
