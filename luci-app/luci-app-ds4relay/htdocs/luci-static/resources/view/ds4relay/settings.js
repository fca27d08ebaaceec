'use strict';
'require view';
'require dom';
'require form';
'require poll';
'require ui';
'require uci';
'require tools.widgets as widgets';
'require ds4relay.api as api';
'require ds4relay.config as config';
'require ds4relay.fields as fields';
'require ds4relay.guard as guard';
'require ds4relay.model as model';
'require ds4relay.page as page';
'require ds4relay.part as part';
'require ds4relay.push as push';
'require ds4relay.rules as rules';
'require ds4relay.services as services';
'require ds4relay.words as words';

/*
 * Addresses of the home's hosts, as choices of an option: those with a name first, then the others with their MAC
 * address. The router's own are among the hints: who wants its services on the Internet types one of them.
 */
function addHosts(option, hosts, interfaces) {
	const named = {},
	      others = {},
	      isAtHome = model.homes(interfaces);

	for (const mac in hosts)
		for (const ip of L.toArray(hosts[mac].ipaddrs ?? hosts[mac].ipv4))
			if (isAtHome(ip))
				(hosts[mac].name ? named : others)[ip] = hosts[mac].name || mac;

	for (const ip of L.sortedKeys(named, null, 'addr'))
		option.value(ip, E('span', [ ip, ' (', E('strong', [ named[ip] ]), ')' ]));

	for (const ip of L.sortedKeys(others, null, 'addr'))
		if (!named[ip])
			option.value(ip, E('span', [ ip, ' (', others[ip], ')' ]));

	return option;
}

function hostName(hosts, ip) {
	for (const mac in hosts)
		if (hosts[mac].name && L.toArray(hosts[mac].ipaddrs ?? hosts[mac].ipv4).includes(ip))
			return hosts[mac].name;

	return null;
}

function relayTitle(sid) {
	return sid;
}

function forwardTitle(sid) {
	return config.forwardName(uci.get('ds4relay', sid));
}

function titleOf(section) {
	return (section['.type'] == 'relay')
		? words.fill(_('Relay %s'), [ section['.name'] ])
		: words.fill(_('Forward %s'), [ config.forwardName(section) ]);
}

/* LuCI strips what looks like HTML from titles, and takes a dialogue's title for HTML: a name is text. */
function asText(section) {
	section.titleFn = function(attr, ...args) {
		if (attr == 'sectiontitle' && this.sectiontitle)
			return this.sectiontitle(...args);

		if (attr == 'modaltitle' && this.modaltitle)
			return '%h'.format(this.modaltitle(...args));

		return form.GridSection.prototype.titleFn.call(this, attr, ...args);
	};
}

/* A forward's relays: a list, or words with blanks between them. */
function relaysOf(forward) {
	return L.toArray(forward?.relay).flatMap((names) => names.split(/\s+/).filter(Boolean));
}

/* Rows can be moved with the arrow keys too. */
function sortByKeys(section) {
	section.renderRowActions = function(sid, ...args) {
		const cell = form.GridSection.prototype.renderRowActions.call(this, sid, ...args),
		      handle = cell.querySelector('.drag-handle');

		cell.querySelectorAll('button').forEach((button) => {
			button.setAttribute('aria-label', words.fill('%s: %s', [
				button.title || button.textContent, this.titleFn('sectiontitle', sid)
			]));
		});

		if (handle && this.map.readonly)
			handle.setAttribute('disabled', '');

		if (!handle || this.map.readonly)
			return cell;

		handle.title = _('Drag to reorder, or use the arrow keys');
		handle.setAttribute('aria-label', words.fill('%s: %s', [ handle.title, this.titleFn('sectiontitle', sid) ]));
		handle.addEventListener('keydown', (ev) => {
			const down = ev.key == 'ArrowDown',
			      row = handle.closest('tr'),
			      other = down ? row.nextElementSibling : row.previousElementSibling;

			if ((!down && ev.key != 'ArrowUp') || !other?.dataset.sid)
				return;

			ev.preventDefault();
			this.map.data.move('ds4relay', sid, other.dataset.sid, down);
			row.parentNode.insertBefore(row, down ? other.nextElementSibling : other);
			handle.focus();
		});

		return cell;
	};
}

/* An option of WireGuard for a router only. */
function atHome(option) {
	for (const role of [ '', 'router' ])
		option.depends({ transport: 'wireguard', role });
}

function egressChoices(option) {
	option.value('replies', _('Answers only'));
	option.value('all', _('Everything that the host sends'));

	return option;
}

/* Where the VPS is, and what kind of tunnel leads there. `first`: the name of the relay of the first visit. */
function relayOptions(s, first) {
	const inModal = !first,
	      tab = (name) => (inModal ? name : null);

	fields.add(s, tab('general'), form.Value, 'ipaddr',
		_('The IPv4 address of your VPS. Clients reach your server at home under this address.'),
		{ placeholder: '198.51.100.144' });

	fields.add(s, tab('general'), form.Value, 'peeraddr',
		_('The IPv6 prefix or address of your VPS, or its DNS name. ' +
			'With a prefix, the tunnel gets an address of its own in it.') +
			' ' + _('With WireGuard: its IPv4 or IPv6 address, or its DNS name.'),
		{
			placeholder: '2001:db8:6ef9::/64',
			needed: inModal ? (values) => values.role != 'vps' || values.transport != 'wireguard' : true
		});

	const transport = fields.add(s, tab('general'), form.ListValue, 'transport',
		_('WireGuard encrypts, and works where there is no IPv6 or where IPv4 in IPv6 is filtered. It needs the ' +
			'package kmod-wireguard, and the VPS’s address in place of its IPv6 prefix.'),
		{ placeholder: _('IPv4 in IPv6, not encrypted (default)') });
	transport.value('ipip6', _('IPv4 in IPv6, not encrypted'));
	transport.value('wireguard', _('WireGuard, encrypted'));

	fields.add(s, tab('general'), form.Value, 'public_key',
		first
			? words.fill(_('On the VPS, “ds4relay genkey %s” makes a key and prints its public half. The ' +
				'overview makes this router’s key.'), [ first ])
			: _('On the VPS, “ds4relay genkey” and the relay’s name make a key and print its public half. The ' +
				'tab VPS makes this router’s key.'),
		{ retain: true, needed: (values) => values.transport == 'wireguard' }).depends('transport', 'wireguard');
}

/* What a first forward has beside what its form asks for. */
function nameForward(relay, forward) {
	uci.set('ds4relay', forward, 'relay', relay);

	if (!uci.get('ds4relay', forward, 'name'))
		uci.set('ds4relay', forward, 'name', services.name(uci.get('ds4relay', forward, 'src_dport')));
}

return view.extend({
	load() {
		return Promise.all([
			api.schema(),
			L.resolveDefault(api.hosts(), {}),
			L.resolveDefault(api.interfaces(), []),
			uci.load('ds4relay')
		]).then(([ schema, hosts, interfaces ]) => {
			fields.use(schema);
			this.schema = schema;
			this.hosts = hosts;
			this.interfaces = interfaces;
			words.learn(config.forwardNames());

			return L.resolveDefault(guard.checkSaved(), null);
		}).then((answer) => {
			this.answer = answer;
		});
	},

	render() {
		page.style();

		this.fresh = config.isFresh((text) => rules.isExample(text));

		/* LuCI loads the page again once the changes are applied: after the first ones that is the overview. */
		if (this.fresh)
			document.addEventListener('uci-applied', () =>
				window.history.replaceState(null, '', L.url('admin/services/ds4relay/overview')));

		if (this.fresh)
			return this.invitation();

		this.told = E('div', { 'aria-live': 'polite' });
		poll.add(() => L.resolveDefault(api.status(), { relays: [] }).then(({ relays }) => this.tell(relays)));

		return this.show(this.allSettings(), [ this.told, this.mistakes() ], []);
	},

	/* Shows a form, with what stands above and below it. */
	show(map, above, below) {
		this.map = map;
		guard.protect(map, titleOf);

		return map.render().then((node) => E('div', { 'class': 'ds4' }, [ ...above, node, ...below ]));
	},

	/* What the VPSs say. */
	tell(relays) {
		part.show(this.told, push.key(relays), () => {
			words.learn(config.forwardNames());

			return push.render(relays);
		});
	},

	/* The page's buttons are those of a form. */
	addFooter() {
		return this.map ? view.prototype.addFooter.call(this) : E([]);
	},

	/* Puts a form in place of what the page shows. */
	replace(map, below) {
		return this.show(map, [], below).then((node) =>
			dom.content(this.page, [ node, this.addFooter() ]));
	},

	/* One field: everything else is the VPS's to say. */
	invitation() {
		const field = E('textarea', {
			'id': 'ds4-invitation', 'class': 'cbi-input-textarea ds4-invitation', 'rows': 5, 'spellcheck': 'false',
			'autocomplete': 'off', 'placeholder': 'ds4relay1.…', 'aria-describedby': 'ds4-invitation-error'
		});

		this.refused = E('div', { 'id': 'ds4-invitation-error', 'class': 'ds4-error', 'aria-live': 'polite' });
		this.invited = E('div', { 'aria-live': 'polite' });
		this.page = E('div', { 'class': 'ds4' });
		dom.content(this.page, E('div', { 'class': 'cbi-map' }, [
			E('h2', { 'name': 'content' }, [ _('DS4Relay') ]),
			E('div', { 'class': 'cbi-map-descr' }, [
				_('Gives a server at home the public IPv4 address of a VPS that you rent.')
			]),
			E('div', { 'class': 'cbi-section' }, [
				E('label', { 'for': 'ds4-invitation' }, [ E('h3', [ _('Invitation') ]) ]),
				E('p', page.sentence(
					_('Paste the line that `ds4relay setup` or `ds4relay invite` has printed on the VPS. ' +
						'Nothing happens before you have seen whose it is.')
				)),
				field,
				this.refused,
				E('div', { 'class': 'ds4-buttons' }, [
					this.step(_('Continue'), 'cbi-button-action important', () => this.read(field.value)), ' ',
					this.step(_('I have no invitation'), 'cbi-button-neutral',
						() => this.replace(this.firstVisit(), [ this.defaults() ]), true)
				])
			]),
			this.invited
		]));

		return this.page;
	},

	/* A button of the first visit. Errors are shown below the field. Who may only read may see the form. */
	step(label, style, act, always) {
		return E('button', {
			'class': 'btn cbi-button ' + style,
			'disabled': (!always && L.hasViewPermission() === false) || null,
			'click': ui.createHandlerFn(this, () => {
				dom.content(this.refused, []);

				return act().catch((err) => dom.content(this.refused, [ words.error(err) ]));
			})
		}, [ label ]);
	},

	/* Shows the VPS of an invitation. Blanks and line breaks are the program's to drop. */
	read(text) {
		dom.content(this.invited, []);

		return api.invitation(text).then((invited) => dom.content(this.invited, E('div', { 'class': 'cbi-section' }, [
			E('h3', [ _('Is this your VPS?') ]),
			E('dl', { 'class': 'ds4-defaults' }, [
				[ _('Public IPv4 address'), invited.ipaddr ],
				[ _('Address of the VPS'), invited.hosts.join(', ') ],
				[ _('Fingerprint of its ssh host key'), E('code', [ invited.fingerprint ]) ],
				[ _('Tunnel'), (invited.transport == 'wireguard')
					? _('WireGuard, encrypted')
					: _('IPv4 in IPv6, not encrypted') ],
				[ _('Name of the relay'), invited.relay ]
			].flatMap(([ name, value ]) => [ E('dt', [ name ]), E('dd', [ value ]) ])),
			E('p', page.sentence(
				_('`ds4relay invite` shows the fingerprint on the VPS. This router makes keys of its own, ' +
					'gives their public halves to the VPS, and starts the tunnel.')
			)),
			E('div', { 'class': 'ds4-buttons' }, [
				this.step(_('Join this VPS'), 'cbi-button-positive important', () => this.join(text)), ' ',
				this.step(_('Cancel'), 'cbi-button-neutral', () => Promise.resolve(dom.content(this.invited, [])), true)
			])
		])));
	},

	/* The program writes the relay into the configuration; what is left is the server at home. */
	join(text) {
		return api.join(text).then(({ relay }) => {
			uci.unload('ds4relay');

			return uci.load('ds4relay').then(() => this.replace(this.firstServer(relay), []));
		});
	},

	/* What is wrong with the file already. */
	mistakes() {
		const errors = this.fresh ? [] : this.answer?.errors ?? [];

		if (!errors.length)
			return E([]);

		return page.alert('error', _('The configuration has mistakes; nothing changes until you correct them'),
			guard.locate(errors, config.sections(), titleOf).map((problem) => problem.text));
	},

	/* Four values and two choices, and the defaults of everything else. */
	firstVisit() {
		const relay = config.of('relay')[0]?.['.name'] ?? uci.add('ds4relay', 'relay', 'home'),
		      forward = this.firstForward(),
		      map = new form.Map('ds4relay', _('DS4Relay'),
			_('Gives a server at home the public IPv4 address of a VPS that you rent. Four values are needed; ' +
				'everything else has a default.'));

		if (!uci.get('ds4relay', relay, 'keep'))
			uci.set('ds4relay', relay, 'keep', [ 'tcp:22' ]);

		const s = map.section(form.NamedSection, relay, 'relay', _('Your VPS'));

		relayOptions(s, relay);

		this.server(map, forward);

		/* Examples are no values. */
		for (const section of map.children)
			for (const option of section.children) {
				option.cfgvalue = function(sid, ...args) {
					const value = form.Value.prototype.cfgvalue.call(this, sid, ...args),
					      isExample = uci.get('ds4relay', relay, 'enabled') == '0';

					return isExample ? null : value;
				};
				option.forcewrite = true;
			}

		/* What is saved here is switched on, and starts with what the example has of the rest. */
		const parse = map.parse;

		map.parse = function() {
			return parse.call(this).then(() => {
				uci.unset('ds4relay', relay, 'enabled');
				nameForward(relay, forward);
			});
		};

		return map;
	},

	/* After joining: the VPS has said everything else. */
	firstServer(relay) {
		const forward = uci.add('ds4relay', 'forward', 'server'),
		      map = new form.Map('ds4relay', _('DS4Relay'),
			words.fill(_('This router is joined to the VPS, as relay %s. Which server at home is to be reached?'), [
				relay
			])),
		      parse = map.parse;

		this.server(map, forward);
		map.parse = function() {
			return parse.call(this).then(() => nameForward(relay, forward));
		};

		return map;
	},

	/* Which server at home is to be reached, and at which port. */
	server(map, forward) {
		const s = map.section(form.NamedSection, forward, 'forward', _('Your server at home'));

		addHosts(fields.add(s, null, form.Value, 'dest_ip',
			_('The server at home: a device that your router knows, or another address in your network.'),
			{ title: _('Server'), placeholder: _('-- Please choose --') }), this.hosts, this.interfaces);

		fields.add(s, null, form.Value, 'src_dport',
			_('The port that the server listens on, such as 443 for a web site, or a range such as 8000-8010.'),
			{ title: _('Port'), placeholder: '443', needed: true });

		fields.add(s, null, fields.Transports, 'proto',
			_('Most servers use TCP; many games and VPNs use UDP.'), { default: 'tcp' });
	},

	/* The forward of the first visit. The example's is a web server by its section's name too: it makes room. */
	firstForward() {
		const [ given ] = config.of('forward'),
		      isExample = given?.['.name'] == 'web' && given.name == 'Web server';

		if (isExample)
			uci.remove('ds4relay', 'web');

		return (given && !isExample) ? given['.name'] : uci.add('ds4relay', 'forward', 'server');
	},

	/* What is not asked for on the first visit. */
	defaults() {
		const life = (one) => one.preferred ?? 2 ** 32, // seconds, 0 once it is deprecated; absent: for ever
		      prefix = this.interfaces.flatMap((uplink) => L.toArray(uplink['ipv6-prefix']).map(
			(one) => ({ ...one, uplink: uplink.interface }))).sort((a, b) => life(b) - life(a))[0],
		      specs = fields.specs.relay,
		      rows = [
			[ _('IPv6 address of this home'), prefix
				? words.fill(_('from the prefix that your provider delegates, now %s on %s'), [
					prefix.address + '/' + prefix.mask, prefix.uplink
				])
				: _(
					'from the network of the Internet interface: your provider delegates no prefix now. WireGuard needs none.'
				) ],
			[ _('Stays with the VPS'), _('its ssh (tcp:22)') ],
			[ _('What goes out by the VPS'), _('Answers only') ],
			[ _('MTU'), _('that of the path to the VPS, minus the tunnel’s overhead') ],
			[ _('Routing table'), specs.ip4table.default ],
			[ _('Firewall'), _('opened for the tunnel and the server, nothing else') ]
		];

		return E('div', { 'class': 'cbi-section' }, [
			E('h3', [ _('Everything else') ]),
			E('p', [ _('Defaults. You can change them after saving.') ]),
			E('dl', { 'class': 'ds4-defaults' }, rows.flatMap(([ name, value ]) => [
				E('dt', [ name ]), E('dd', [ value ])
			]))
		]);
	},

	allSettings() {
		const map = new form.Map('ds4relay', _('DS4Relay'),
			_('Gives servers at home the public IPv4 address of a VPS, through a tunnel.'));

		this.relays(map);
		this.forwards(map);

		return map;
	},

	relays(map) {
		const view = this,
		      s = map.section(form.GridSection, 'relay', _('Relays'),
			_('A relay is one public IPv4 address, and the tunnel to the VPS that has it.'));
		s.addremove = true;
		s.sortable = true;
		s.addbtntitle = _('Add relay');
		s.sectiontitle = relayTitle;
		s.modaltitle = (sid) => words.fill(_('Relay %s'), [ sid ]);
		s.nodescriptions = true;
		asText(s);
		sortByKeys(s);

		s.tab('general', _('General Settings'));
		s.tab('advanced', _('Advanced Settings'));

		relayOptions(s, null);

		const wireguard = (tab, name, description, properties) =>
			fields.add(s, tab, form.Value, name, description, { retain: true, ...properties });
		for (const option of s.children)
			if (option.option == 'ipaddr' || option.option == 'peeraddr')
				option.modalonly = null;

		fields.add(s, null, form.Flag, 'enabled', null, { editable: true });

		fields.add(s, 'general', form.Value, 'ip6addr',
			_('By default from the prefix that your provider delegates, else from the network of the Internet ' +
				'interface, also after it changes. Or give a prefix or an address.'),
			{ placeholder: 'auto', retain: true }).depends({ transport: 'wireguard', '!reverse': true });

		fields.add(s, 'general', widgets.NetworkSelect, 'tunlink',
			_('The interface that carries the tunnel.'),
			{ nocreate: true, retain: true, renderWidget: fields.renderUplink })
			.depends({ transport: 'wireguard', role: '', '!reverse': true });

		fields.add(s, 'general', form.DynamicList, 'keep',
			_('Protocols and ports of the public address that the VPS itself keeps, such as tcp:22 for its ssh.'),
			{ placeholder: 'tcp:22' });

		const role = fields.add(s, 'advanced', form.ListValue, 'role', null,
			{ placeholder: _('the router at home (default)') });
		role.value('router', _('the router at home'));
		role.value('vps', _('the VPS'));

		egressChoices(fields.add(s, 'advanced', form.ListValue, 'egress',
			_('Which of a host’s traffic uses the tunnel: only answers to clients, or also the host’s own ' +
				'connections. A forward can differ.'),
			{ placeholder: _('Answers only (default)') }));

		fields.add(s, 'advanced', form.Flag, 'killswitch',
			_('Hosts that send everything through the VPS reach the IPv4 internet through the tunnel or not at ' +
				'all. IPv6 is not affected.'))
			.depends({ role: 'vps', '!reverse': true });
		const backup = fields.add(s, 'advanced', form.ListValue, 'backup',
			_('The relay by which hosts that send everything through the VPS open connections while it is silent.'),
			{ retain: true, placeholder: _('no other relay') });
		backup.load = function(sid) {
			const given = uci.get('ds4relay', sid, 'backup'),
			      choices = config.of('relay').filter((relay) => relay.role != 'vps').map((relay) => relay['.name'])
			      	.filter((name) => name != sid && name != given);

			this.keylist = [];
			this.vallist = [];

			for (const name of choices.concat(given ?? []))
				this.value(name, name);

			return given ?? null;
		};
		backup.depends({ role: 'vps', '!reverse': true });
		fields.add(s, 'advanced', form.Flag, 'masq',
			_('Hosts see this router’s address instead of the client’s. For hosts whose default gateway is ' +
				'another router.'))
			.depends({ role: 'vps', '!reverse': true });
		fields.add(s, 'advanced', form.Flag, 'egress_private',
			_('Hosts that send everything through the VPS may reach its private networks too.')).depends('role', 'vps');

		fields.add(s, 'advanced', form.Value, 'mtu', _(
			'The largest packet in the tunnel, in bytes. Default: the MTU of the path to the VPS, minus the tunnel’s overhead.'
		));
		fields.add(s, 'advanced', form.Value, 'encaplimit',
			_('Most VPS networks drop packets with this option of RFC 2473.'), { retain: true })
			.depends({ transport: 'wireguard', '!reverse': true });
		fields.add(s, 'advanced', form.Value, 'ttl', null, { retain: true })
			.depends({ transport: 'wireguard', '!reverse': true });
		atHome(wireguard('advanced', 'endpoint_port', null));
		wireguard('advanced', 'listen_port', _('Each relay of the VPS needs its own.'))
			.depends({ transport: 'wireguard', role: 'vps' });
		atHome(wireguard('advanced', 'persistent_keepalive',
			_('Seconds between packets to the VPS if there are no others. They keep firewalls on the way open.')));
		wireguard('advanced', 'private_key_file', null, { placeholder: '/etc/ds4relay/keys/…' })
			.depends('transport', 'wireguard');
		wireguard('advanced', 'preshared_key_file', _('A key that both ends have besides.'))
			.depends('transport', 'wireguard');
		const peer = fields.add(s, 'advanced', form.ListValue, 'peer', null,
			{ retain: true, placeholder: _('DS4Relay (default)') });
		peer.value('plain', _('any WireGuard client, such as a FRITZ!Box'));
		peer.depends({ transport: 'wireguard', role: 'vps' });
		fields.add(s, 'advanced', form.Value, 'nicaddr',
			_('The private address that the VPS’s cloud translates its public address to. By default it is found.'),
			{ retain: true }).depends('role', 'vps');
		fields.add(s, 'advanced', form.Value, 'device', null, { placeholder: 'ds4-…' });
		fields.add(s, 'advanced', form.Value, 'ip4table', _('Each relay needs its own.'));
		fields.add(s, 'advanced', form.Value, 'priority',
			_('The first of six priorities of ip rules.'));
		fields.add(s, 'advanced', form.Flag, 'flow_offloading',
			_('Established connections bypass the firewall’s rules if the kernel supports it.'));
		fields.add(s, 'advanced', form.Flag, 'standby',
			_('Another VPS may have the public address in its place, as keepalived decides.'),
			{ retain: true }).depends('role', 'vps');
		fields.add(s, 'advanced', form.Flag, 'target_local',
			_('Programs on the VPS reach the home by the public address, as clients on the Internet do.'),
			{ retain: true }).depends('role', 'vps');

		s.handleAdd = function(ev, name) {
			this.map.data.add('ds4relay', 'relay', name);
			uci.set('ds4relay', name, 'keep', [ 'tcp:22' ]);
			uci.set('ds4relay', name, 'ip4table', view.freeTable());
			this.map.addedSection = name;

			return this.renderMoreOptionsModal(name);
		};

		s.handleRemove = function(sid, ev) {
			return view.removeRelay(this, sid, ev);
		};

		s.addModalOptions = (modal) => guard.protect(modal.map, titleOf);

		s.renderSectionAdd = function(extra) {
			const node = form.GridSection.prototype.renderSectionAdd.call(this, extra),
			      input = node.querySelector('input');

			input.setAttribute('aria-label', _('Name of the new relay'));
			input.setAttribute('placeholder', _('Name of the new relay'));

			if (!this.map.readonly)
				ui.addValidator(input, 'string', true, (text) => {
					if (text != '' && !rules.isRelayName(text))
						return _('allowed are 1 to 11 characters out of a-z 0-9 _');

					return (uci.get('ds4relay', text) == null) || _('this name is taken');
				}, 'blur', 'keyup');

			return node;
		};
	},

	/* The default table is for the first router's relay; others need their own. */
	freeTable() {
		const taken = config.of('relay').map((relay) => +(relay.ip4table ?? fields.specs.relay.ip4table.default));
		let table = +fields.specs.relay.ip4table.default;

		while (taken.includes(table))
			table++;

		return (table == +fields.specs.relay.ip4table.default) ? null : String(table);
	},

	/* A forward without its relay would be a mistake: they go together. */
	removeRelay(section, sid) {
		const others = (forward) => relaysOf(forward).filter((name) => name != sid),
		      all = config.of('forward').filter((forward) =>
		      	relaysOf(forward).includes(sid) || (!forward.relay && config.of('relay').length == 1)),
		      forwards = all.filter((forward) => !others(forward).length);

		const remove = () => {
			for (const relay of config.of('relay'))
				if (relay.backup == sid)
					uci.unset('ds4relay', relay['.name'], 'backup');

			for (const forward of all)
				if (others(forward).length)
					uci.set('ds4relay', forward['.name'], 'relay', others(forward).join(' '));
				else
					uci.remove('ds4relay', forward['.name']);

			return form.GridSection.prototype.handleRemove.call(section, sid);
		};

		if (!forwards.length)
			return remove();

		ui.showModal(_('Delete the relay?'), [
			E('p', [ words.fill(_('These forwards go with relay %s:'), [ sid ]) ]),
			E('ul', forwards.map((forward) => E('li', [ forwardTitle(forward['.name']) ]))),
			E('div', { 'class': 'right' }, [
				E('button', { 'class': 'btn cbi-button', 'click': ui.hideModal }, [ _('Cancel') ]), ' ',
				E('button', {
					'class': 'btn cbi-button cbi-button-negative important',
					'click': ui.createHandlerFn(this, () => remove().then(ui.hideModal))
				}, [ _('Delete') ])
			])
		]);
	},

	forwards(map) {
		const hosts = this.hosts,
		      interfaces = this.interfaces,
		      relays = config.of('relay').map((relay) => relay['.name']),
		      s = map.section(form.GridSection, 'forward', _('Forwards', 'of ports'),
			_('Which traffic to the public address is let through, and to which host and port.'));
		let o;

		s.addremove = true;
		s.anonymous = true;
		s.sortable = true;
		s.addbtntitle = _('Add forward');
		s.sectiontitle = forwardTitle;
		s.modaltitle = (sid) => words.fill(_('Forward %s'), [ forwardTitle(sid) ]);
		s.nodescriptions = true;
		asText(s);
		sortByKeys(s);

		s.tab('general', _('General Settings'));
		s.tab('advanced', _('Advanced Settings'));

		o = s.option(form.DummyValue, '_opens', _('Opens'));
		o.modalonly = false;
		o.textvalue = (sid) => E('span', [ model.opens(config.mappings(uci.get('ds4relay', sid))) ]);

		o = s.option(form.DummyValue, '_to', _('To'));
		o.modalonly = false;
		o.textvalue = (sid) => {
			const ip = uci.get('ds4relay', sid, 'dest_ip') ?? '',
			      port = uci.get('ds4relay', sid, 'dest_port'),
			      name = hostName(hosts, ip);

			return E('span', [ ip + (port ? ':' + port : ''), name ? ' (' + name + ')' : '' ]);
		};

		if (relays.length > 1) {
			o = s.option(form.DummyValue, '_relay', _('Relay', 'tunnel to a VPS'));
			o.modalonly = false;
			o.textvalue = (sid) => E('span', [ relaysOf(uci.get('ds4relay', sid)).join(', ') ]);
		}

		fields.add(s, null, form.Flag, 'enabled', null, { editable: true });

		fields.add(s, 'general', form.Value, 'name', _('Your words for it.'));

		o = fields.add(s, 'general', form.ListValue, 'relay', null, {
			placeholder: (relays.length == 1) ? words.fill(_('the only one (%s)'), relays) : _('-- Please choose --'),
			needed: relays.length > 1
		});
		o.load = function(sid) {
			const given = relaysOf(uci.get('ds4relay', sid)).join(' '),
			      together = model.inTurn(config.of('relay')),
			      choices = relays.concat(together);

			this.keylist = [];
			this.vallist = [];
			this.description = together.length
				? _('Relays with the same public address can have a forward together.')
				: null;

			for (const names of choices.concat((given && !choices.includes(given)) ? [ given ] : []))
				this.value(names, names.split(' ').join(', '));

			return given || null;
		};

		fields.add(s, 'general', fields.Protocols, 'proto',
			_('All protocols and ports make the public address the host’s own, except what stays with the VPS.'));

		o = fields.add(s, 'general', fields.Words, 'src_dport',
			_('The port of the public address, or a range such as 8000-8010; several with blanks between them.'),
			{ needed: true });
		o.checkDepends = needsPorts;

		o = fields.add(s, 'general', form.Value, 'dest_ip', _('The server in your network.'),
			{ placeholder: _('-- Please choose --') });
		addHosts(o, hosts, interfaces);

		o = fields.add(s, 'general', form.Value, 'dest_port',
			_('The port on the host, or the range with as many ports.'),
			{ placeholder: _('the external port') });
		o.checkDepends = needsPorts;

		fields.add(s, 'advanced', form.DynamicList, 'src_ip',
			_('Addresses or networks that may use it. Without one: everybody.'), { placeholder: '203.0.113.0/24' });

		o = fields.add(s, 'advanced', form.ListValue, 'egress', null,
			{ placeholder: _('as the relay has it') });
		egressChoices(o);

		o = fields.add(s, 'advanced', form.ListValue, 'killswitch',
			_('The host reaches the IPv4 internet through the tunnel or not at all. Only for hosts that send ' +
				'everything through the VPS.'),
			{ placeholder: _('as the relay has it') });
		o.value('1', _('on'));
		o.value('0', _('off'));

		o = fields.add(s, 'advanced', form.ListValue, 'masq',
			_('The host sees this router’s address instead of the client’s. For hosts whose default gateway is ' +
				'another router.'),
			{ placeholder: _('as the relay has it') });
		o.value('1', _('on'));
		o.value('0', _('off'));

		s.handleAdd = function() {
			const sid = uci.add('ds4relay', 'forward');

			if (relays.length == 1)
				uci.set('ds4relay', sid, 'relay', relays[0]);

			this.map.addedSection = sid;

			return this.renderMoreOptionsModal(sid);
		};

		s.addModalOptions = (modal) => guard.protect(modal.map, titleOf);
	},

	/* What is wrong is shown above the form, not in a dialogue that hides it. */
	handleSave() {
		return this.map.save(null, true);
	},

	handleSaveApply(ev, mode) {
		return this.handleSave(ev).then(() => ui.changes.apply(mode == '0')).catch(() => {});
	}
});

/* Ports are for protocols that have them. */
function needsPorts(sid) {
	const proto = this.section.getOption('proto'),
	      given = L.toArray(proto?.formvalue(sid));

	return !given.length || rules.hasPorts(given);
}
