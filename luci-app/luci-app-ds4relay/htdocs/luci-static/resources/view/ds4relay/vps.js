'use strict';
'require view';
'require uci';
'require ds4relay.actions as actions';
'require ds4relay.api as api';
'require ds4relay.config as config';
'require ds4relay.model as model';
'require ds4relay.page as page';
'require ds4relay.rules as rules';
'require ds4relay.words as words';

/* Copies out of a field: the way of browsers that offer no clipboard, since they do so only over https. */
function copyFromField(text) {
	const area = document.body.appendChild(
		E('textarea', { 'readonly': '', 'style': 'position:fixed;opacity:0' }, [ text ]));

	area.select();

	try {
		return document.execCommand('copy');
	}
	catch {
		return false;
	}
	finally {
		area.remove();
	}
}

/* Puts the text into the clipboard, and tells whether that was possible. */
function copy(text) {
	if (!navigator.clipboard?.writeText)
		return Promise.resolve(copyFromField(text));

	return navigator.clipboard.writeText(text).then(() => true, () => copyFromField(text));
}

/* A button that copies. Where the browser does not let it, the text is there, marked. */
function copyButton(text, label, name, style) {
	const button = E('button', {
		'class': 'btn cbi-button cbi-button-action ' + (style ?? ''), 'aria-label': name
	}, [ label ]),
	      said = E('span', { 'role': 'status', 'class': 'ds4-said' }),
	      area = E('textarea', {
		'class': 'ds4-marked', 'readonly': '', 'rows': 8, 'aria-label': name, 'hidden': ''
	      }, [ text ]);

	button.addEventListener('click', () => copy(text).then((done) => {
		said.textContent = done
			? _('Copied')
			: _('Your browser does not let it be copied. It is marked now: press Ctrl+C');
		area.hidden = done;

		if (!done) {
			area.focus();
			area.select();
		}

		window.setTimeout(() => { said.textContent = ''; }, done ? 4000 : 20000);
	}));

	return E('div', { 'class': 'ds4-copy' }, [ button, ' ', said, area ]);
}

/* A step: what it is for, and what to type. */
function step(number, title, text) {
	return E('li', { 'class': 'ds4-step' }, [
		E('h4', { 'id': 'ds4-step-' + number }, [ title ]),
		copyButton(text, _('Copy'), words.fill(_('Copy: %s'), [ title ])),
		E('pre', { 'tabindex': 0, 'aria-labelledby': 'ds4-step-' + number }, [ text ])
	]);
}

/* A line that ends the file, and is none of it. */
function endOf(file) {
	let end = 'EOF';

	while (file.split('\n').includes(end))
		end += 'F';

	return end;
}

/*
 * One command to paste into a shell: it writes the file beside the present one, and puts it there and starts the
 * service only if it has no mistakes. Tabs would complete names in a shell, so the file has none.
 */
function setUp(file, start) {
	const text = file.replace(/^\t+/gm, (tabs) => '    '.repeat(tabs.length)).replace(/\n*$/, '\n'),
	      end = endOf(text);

	return [
		"mkdir -p /etc/config && cat >/etc/config/ds4relay.new <<'" + end + "' &&", text + end,
		'ds4relay check /etc/config/ds4relay.new && {',
		'    [ ! -e /etc/config/ds4relay ] || cp -p /etc/config/ds4relay /etc/config/ds4relay.old',
		'} && mv /etc/config/ds4relay.new /etc/config/ds4relay &&', start
	].join('\n');
}

function isEnabled(relay) {
	return !/^(?:0|off|false|no|disabled)$/.test(relay.enabled ?? '1');
}

/*
 * The machines at the other end, each with its relays. Relays to VPSs that have the public address in common, or the
 * IPv6 prefix, or the name, are of one VPS, and in one file.
 */
function machines(relays) {
	const found = [];

	for (const relay of relays) {
		const marks = [ rules.network(relay.peeraddr ?? '') ?? relay.peeraddr, (relay.role == 'vps') ? null : relay.ipaddr ]
			.filter((mark) => mark).map((mark) => relay.role + ' ' + mark),
		      same = found.filter((machine) => marks.some((mark) => machine.marks.includes(mark))),
		      [ first ] = same;

		if (first) {
			for (const other of same.slice(1))
				first.relays.push(...found.splice(found.indexOf(other), 1)[0].relays);

			first.relays.push(relay);
			first.marks.push(...marks, ...same.slice(1).flatMap((other) => other.marks));
		}
		else {
			found.push({ marks, relays: [ relay ] });
		}
	}

	return found.map((machine) => machine.relays);
}

return view.extend({
	load() {
		return Promise.all([
			api.schema(), api.status().then((status) => ({ status }), (unknown) => ({ unknown })), uci.load('ds4relay')
		]).then(([ schema, { status, unknown } ]) => {
			const usual = (name) => schema.sections.find((section) => section.type == 'relay').options
				.find((option) => option.name == name).default;

			words.learn(config.forwardNames());
			this.fresh = config.isFresh((text) => rules.isExample(text));

			return Promise.all(this.fresh ? [] : config.of('relay').filter(isEnabled).map((relay) => {
				const known = {
					name: relay['.name'], role: relay.role ?? 'router', ipaddr: relay.ipaddr, peeraddr: relay.peeraddr,
					port: (relay.transport == 'wireguard') ? relay.endpoint_port ?? usual('endpoint_port') : null,
					paired: status?.relays.some((one) => one.name == relay['.name'] && one.joined),
					auto: relay.transport != 'wireguard' && (!relay.ip6addr || relay.ip6addr == 'auto')
				};

				/* Perhaps they are paired, and a file from here would be wrong. */
				if (unknown)
					return Object.assign(known, { error: words.error(unknown) });

				return api.exportFile(known.name).then(
					(answer) => Object.assign(known, { file: answer.config }),
					(err) => Object.assign(known, { error: words.error(err), keyless: model.keyless(err, status) }));
			}));
		});
	},

	render(relays) {
		page.style();

		return E('div', { 'class': 'cbi-map ds4' }, [
			E('h2', { 'name': 'content' }, [ _('DS4Relay – the other end') ]),
			E('div', { 'class': 'cbi-map-descr' }, [
				_('A relay has two ends. This page has what the other one needs: two commands, which you can ' +
					'copy together, with a file that is made of your settings.')
			]),
			relays.length ? '' : this.renderNothing()
		].concat(machines(relays).map((machine) => this.renderMachine(machine))));
	},

	renderNothing() {
		return page.alert('notice', this.fresh ? _('Nothing is set up yet') : _('No relay is switched on'), [
			_('The file is made of your settings.')
		], [
			E('a', {
				'class': 'btn cbi-button cbi-button-action important',
				'href': L.url('admin/services/ds4relay/settings')
			}, [ _('Go to the settings') ])
		]);
	},

	/* A machine has one file. If a part of it cannot be made yet, the file would take the others' relays from it. */
	renderMachine(relays) {
		const failed = relays.filter((relay) => relay.error);
		let content = failed.map((relay) => this.renderFailed(relay));

		/* A file from here would take the place of what the VPS says itself. */
		if (relays.some((relay) => relay.paired))
			content = [ page.alert('success', _('The VPS is paired with this router'),
				[ _('It learns each change of the forwards from here. There is nothing to do on it.') ]) ];
		else if (!failed.length)
			content = [ this.renderSteps(relays) ];

		return E('div', { 'class': 'cbi-section' }, [
			E('h3', [
				words.fill((relays.length > 1) ? _('Relays %s') : _('Relay %s'), [
					relays.map((relay) => relay.name).join(', ')
				])
			]),
			...content
		]);
	},

	/* Shows the page as it is now. */
	again() {
		return this.load().then((relays) => document.querySelector('.cbi-map.ds4').replaceWith(this.render(relays)));
	},

	/* Why there is no file, and what mends it. */
	renderFailed({ error, keyless }) {
		if (!keyless)
			return page.alert('warning', _('The file cannot be made yet'), [ error ]);

		const { kind, title, text, action } = model.withoutKey(keyless);

		return page.alert(kind, title, [ text ], [ actions.render(action, () => this.again()) ]);
	},

	renderSteps(relays) {
		const [ { name, role } ] = relays,
		      file = relays.map((relay) => relay.file.trim()).join('\n\n'),
		      steps = (role == 'vps') ? [
			[
				_('On the router with OpenWrt, install the packages'),
				'opkg update && opkg install ds4relay luci-app-ds4relay'
			],
			[
				_('Write its configuration, check it, and start it, now and after each restart'),
				setUp(file, '/etc/init.d/ds4relay enable && /etc/init.d/ds4relay restart')
			]
		] : [
			[ _('On the VPS with Debian, as root, install the package'), 'apt install ./ds4relay_*.deb' ],
			[
				_('Write its configuration, check it, and start it, now and after each restart'),
				setUp(file, 'systemctl enable ds4relay && systemctl reload-or-restart ds4relay')
			]
		];

		/* One list of commands: a shell reads it to its end before the first one runs, which may ask something. */
		const all = steps.map(([ , text ]) => text).join(' &&\n');

		return E([], [
			copyButton(all, _('Copy all'), words.fill('%s: %s', [
				_('Copy all'), relays.map((relay) => relay.name).join(', ')
			]), 'important'),
			E('ol', { 'class': 'ds4-steps' }, steps.map(([ title, text ], i) => step(name + '-' + i, title, text))),
			E('p', { 'class': 'ds4-hint' }, [
				_('The overview notices the other end within a minute.'), ' ',
				E('a', { 'href': L.url('admin/services/ds4relay/overview') }, [ _('Overview') ])
			]),
			E('p', { 'class': 'ds4-hint' }, page.sentence(
				_('The file before is kept as `/etc/config/ds4relay.old`. If that machine has relays for other ' +
					'homes too, add the sections to its file instead.')
			)),
			...((role == 'vps') ? [] : relays.filter((relay) => relay.port)).map((relay) => E('p', { 'class': 'ds4-hint' }, [
				words.fill(
					_('If the provider of the VPS has a firewall in its control panel, let UDP port %s in there.'),
					[ relay.port ])
			])),
			(role != 'vps' && relays.some((relay) => relay.auto)) ? E('p', { 'class': 'ds4-hint' }, page.sentence(
				_('The address of this home is made of the IPv6 network that your provider gives you now. When ' +
					'the provider changes it, the VPS needs the second command again; with a DNS name that ' +
					'follows it in place of the address in `peeraddr` it does not.')
			)) : ''
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
