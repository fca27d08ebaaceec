'use strict';
'require view';
'require uci';
'require ds4relay.api as api';
'require ds4relay.config as config';
'require ds4relay.page as page';
'require ds4relay.rules as rules';
'require ds4relay.words as words';

/* Puts the text into the clipboard. Browsers offer theirs only over https; a router is often reached over http. */
function copy(text) {
	if (navigator.clipboard && window.isSecureContext)
		return navigator.clipboard.writeText(text);

	const area = document.body.appendChild(E('textarea', { 'style': 'position:fixed;opacity:0' }, [ text ]));

	area.select();

	const done = document.execCommand('copy');

	area.remove();

	return done ? Promise.resolve() : Promise.reject(new Error());
}

function copyButton(text, what) {
	const button = E('button', {
		'class': 'btn cbi-button cbi-button-action', 'aria-label': words.fill(_('Copy: %s'), [ what ])
	}, [ _('Copy') ]),
	      said = E('span', { 'role': 'status', 'class': 'ds4-said' });

	button.addEventListener('click', () => copy(text)
		.then(() => _('Copied'), () => _('Your browser does not let it be copied: mark it and copy it yourself'))
		.then((answer) => {
			said.textContent = answer;
			window.setTimeout(() => { said.textContent = ''; }, 4000);
		}));

	return E('div', { 'class': 'ds4-copy' }, [ button, ' ', said ]);
}

/* A step: what it is for, and what to type. */
function step(number, title, text) {
	return E('li', { 'class': 'ds4-step' }, [
		E('h4', { 'id': 'ds4-step-' + number }, [ title ]),
		E('pre', { 'tabindex': 0, 'aria-labelledby': 'ds4-step-' + number }, [ text ]),
		copyButton(text, title)
	]);
}

/* A command that writes the file, whatever it has in it. */
function write(file) {
	let end = 'EOF';

	while (file.split('\n').includes(end))
		end += 'F';

	return "cat > /etc/config/ds4relay <<'" + end + "'\n" + file + end;
}

return view.extend({
	load() {
		return uci.load('ds4relay').then(() => {
			const relays = config.isFresh((text) => rules.isExample(text)) ? [] : config.of('relay');

			return Promise.all(relays.map((relay) => api.exportFile(relay['.name']).then(
				(answer) => ({
					name: relay['.name'], role: relay.role, auto: !relay.ip6addr || relay.ip6addr == 'auto',
					file: answer.config
				}),
				(err) => ({ name: relay['.name'], error: words.error(err) }))));
		});
	},

	render(relays) {
		page.style();

		return E('div', { 'class': 'cbi-map ds4' }, [
			E('h2', { 'name': 'content' }, [ _('DS4Relay – the other end') ]),
			E('div', { 'class': 'cbi-map-descr' }, [
				_('A relay has two ends. This page has what the other one needs: three commands, and a file that is made of your settings.')
			]),
			relays.length ? '' : page.alert('notice', _('Nothing is set up yet'), [
				_('The file is made of your settings.')
			], [
				E('a', {
					'class': 'btn cbi-button cbi-button-action important',
					'href': L.url('admin/services/ds4relay/settings')
				}, [ _('Go to the settings') ])
			])
		].concat(relays.map((relay) => this.renderRelay(relay))));
	},

	renderRelay(relay) {
		return E('div', { 'class': 'cbi-section' }, [
			E('h3', [ words.fill(_('Relay %s'), [ relay.name ]) ]),
			relay.error
				? page.alert('warning', _('The file cannot be made yet'), [ relay.error ])
				: this.renderSteps(relay)
		]);
	},

	renderSteps(relay) {
		const steps = (relay.role == 'vps') ? [
			[
				_('On the router with OpenWrt, install the packages'),
				'opkg update && opkg install ds4relay luci-app-ds4relay'
			],
			[ _('Write its configuration'), write(relay.file) ],
			[ _('Start it'), '/etc/init.d/ds4relay enable && /etc/init.d/ds4relay restart' ]
		] : [
			[ _('On the VPS with Debian, as root, install the package'), 'apt install ./ds4relay_*.deb' ],
			[ _('Write its configuration'), write(relay.file) ],
			[
				_('Start it, now and after each restart'),
				'systemctl enable ds4relay && systemctl reload-or-restart ds4relay'
			]
		];

		return E([], [
			E('ol', { 'class': 'ds4-steps' }, steps.map(([ title, text ], i) =>
				step(relay.name + '-' + i, title, text))),
			(relay.role != 'vps' && relay.auto) ? E('p', { 'class': 'ds4-hint' }, [
				_('The address of this home is made of the prefix that your provider delegates now. When the provider changes it, the VPS needs the second and the third command again; with a DNS name that follows the prefix in place of peeraddr it does not.')
			]) : ''
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
