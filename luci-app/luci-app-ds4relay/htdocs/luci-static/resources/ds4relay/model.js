'use strict';
'require baseclass';
'require ds4relay.words as words';

/* What the program's answers mean: pure, so that it can be tested without a page. */

/* A relay as one word: off, waiting, down, silent (nothing comes back), idle (no traffic yet), working. */
function condition(relay) {
	const counters = relay.counters;

	if (!relay.enabled && !relay.up)
		return 'off';

	if (relay.waiting)
		return 'waiting';

	if (!relay.up)
		return 'down';

	if (!counters || counters.tx_packets + counters.rx_packets == 0)
		return 'idle';

	return (counters.rx_packets == 0) ? 'silent' : 'working';
}

/* How well the parts of a relay's path do: good, warning, bad, or unknown. */
function parts(relay) {
	const is = condition(relay);

	return {
		client: (is == 'working') ? 'good' : 'unknown',
		vps: { working: 'good', silent: 'bad' }[is] ?? 'unknown',
		tunnel: { working: 'good', idle: 'good', silent: 'warning', waiting: 'warning', down: 'bad' }[is] ?? 'unknown',
		router: { working: 'good', idle: 'good', silent: 'good', waiting: 'warning' }[is] ?? 'unknown',
		host: (is == 'working' && relay.forwards.length) ? 'good' : 'unknown'
	};
}

function label(relay, relays) {
	return (relays.length > 1) ? words.fill(_('Relay %s: '), [ relay.name ]) : '';
}

/*
 * What is wrong, in one sentence, and what mends it: `{ kind, title, text, details, action }`. An action is `start`,
 * `reload` or `enable` of the service, or a page to go to: `settings`, `vps`, `diagnose`.
 */
function summary(state) {
	const { status, service, fresh, error } = state;

	if (fresh)
		return {
			kind: 'notice', title: _('Nothing is set up yet'),
			text: _('Four values give a server at home a public IPv4 address.'), action: 'settings'
		};

	if (error?.problems)
		return {
			kind: 'error', title: _('The configuration has mistakes'), text: words.error(error), action: 'settings'
		};

	if (error)
		return { kind: 'error', title: _('The state is not known'), text: words.error(error), action: 'diagnose' };

	const relays = status.relays.filter((relay) => relay.enabled);

	if (!relays.length)
		return {
			kind: 'warning', title: _('No relay is switched on'),
			text: _('Switch one on in the settings.'), action: 'settings'
		};

	if (service && !service.started)
		return {
			kind: 'warning', title: _('DS4Relay is stopped'),
			text: _('Nothing reaches your home by the public address.'), action: 'start'
		};

	if (status.blocked?.length && status.blocked.length == relays.filter((relay) => relay.waiting).length)
		return {
			kind: 'warning', title: _('The relay waits'),
			text: words.list(status, 'blocked').join('; '), action: 'diagnose'
		};

	if (status.blocked?.length)
		return {
			kind: 'error', title: _('Something is in the way'),
			text: words.list(status, 'blocked').join('; '), action: 'diagnose'
		};

	if (status.differs.length)
		return {
			kind: 'warning', title: _('The router is not as the configuration says'),
			text: _('Something was changed or removed. These commands set it right:'),
			details: status.differs, action: 'reload'
		};

	for (const relay of relays)
		if (condition(relay) == 'silent')
			return {
				kind: 'warning', title: label(relay, relays) + _('Nothing comes back from the VPS'),
				text: _('Packets go into the tunnel, and none comes out. Is the VPS set up, and does it have the same addresses?'),
				action: 'vps'
			};

	if (status.notes?.length)
		return {
			kind: 'warning', title: _('It works, but'),
			text: words.list(status, 'notes').join('; '), action: 'diagnose'
		};

	if (service && !service.enabled)
		return {
			kind: 'warning', title: _('It works, but not after a restart of the router'),
			text: _('The service is not started at boot.'), action: 'enable'
		};

	if (relays.some((relay) => condition(relay) == 'working'))
		return { kind: 'success', title: _('It works'), text: _('The tunnel is up, and packets come through it.') };

	return {
		kind: 'success', title: _('The tunnel is up'),
		text: _('Nothing has come through it yet. Try it: open the public address from outside of your home.')
	};
}

/* Traffic per second since the time before, or null where there is none to compare with. */
function rates(now, before) {
	if (!before || !now.counters || !before.counters)
		return null;

	const seconds = (now.time - before.time) / 1000,
	      rate = (name) => (now.counters[name] - before.counters[name]) / seconds;

	if (!(seconds > 0) || now.counters.rx_bytes < before.counters.rx_bytes ||
		now.counters.tx_bytes < before.counters.tx_bytes)
		return null;

	return { rx: rate('rx_bytes'), tx: rate('tx_bytes') };
}

/* A range of ports, or one port. */
function range(first, last) {
	return (first == last) ? String(first) : first + '-' + last;
}

/* Protocols and ports as a person writes them: TCP, UDP 443. */
function opens(mappings) {
	if (mappings.some((m) => m.proto == 'all'))
		return _('everything');

	const byPorts = new Map();

	for (const { proto, first, last } of mappings) {
		const ports = first ? range(first, last) : '';

		byPorts.set(ports, (byPorts.get(ports) ?? []).concat(proto.toUpperCase()));
	}

	return [ ...byPorts ].map(([ ports, protos ]) => protos.join(', ') + (ports ? ' ' + ports : '')).join(', ');
}

/*
 * A forward of the status: what is open, where it goes, who may. The port is there where it is another one than
 * outside.
 */
function split(forward) {
	const moved = forward.mappings.find((m) => m.first && m.port != m.first);

	return {
		opens: opens(forward.mappings), ip: forward.dest_ip, clients: (forward.clients ?? []).join(', '),
		port: moved ? range(moved.port, moved.port + (moved.last - moved.first)) : ''
	};
}

/* The hosts that a relay's forwards go to, each once. */
function hosts(relay) {
	return [ ...new Set(relay.forwards.map((forward) => split(forward).ip)) ];
}

return baseclass.extend({ condition, parts, summary, rates, opens, split, hosts });
