'use strict';
'require baseclass';
'require ds4relay.words as words';

/* What the program's answers mean: pure, so that it can be tested without a page. */

/* The run of each minute listens for the other end: what is older than this, in seconds, says nothing about now. */
const freshSeconds = 150;

/* A relay as one word: off, waiting, down, silent (the other end does not answer), unsure, working. */
function condition(relay) {
	if (!relay.enabled && !relay.up)
		return 'off';

	if (relay.waiting)
		return 'waiting';

	if (!relay.up)
		return 'down';

	if (relay.other_end == 'silent')
		return 'silent';

	return (relay.other_end == 'heard' && relay.heard_s <= freshSeconds) ? 'working' : 'unsure';
}

/* The addresses of hosts that do not answer, each once. */
function missing(relay) {
	return [ ...new Set(relay.forwards.filter((f) => f.host == 'missing').map((f) => f.dest_ip)) ];
}

/* The hosts together: good only if all of them answer. */
function hostsState(relay) {
	const states = new Set(relay.forwards.map((forward) => forward.host));

	if (states.has('missing'))
		return (states.size > 1) ? 'warning' : 'bad';

	return (states.size == 1 && states.has('up')) ? 'good' : 'unknown';
}

/* How long ago something was. */
function ago(seconds) {
	if (seconds < 120)
		return words.fill(_('%d s ago'), [ seconds ]);

	if (seconds < 7200)
		return words.fill(_('%d min ago'), [ Math.floor(seconds / 60) ]);

	return (seconds < 172800)
		? words.fill(_('%d h ago'), [ Math.floor(seconds / 3600) ])
		: words.fill(_('%d days ago'), [ Math.floor(seconds / 86400) ]);
}

/* How well the parts of a relay's path do: good, warning, bad, or unknown. */
function parts(relay) {
	const is = condition(relay);

	return {
		client: (is == 'working') ? 'good' : 'unknown',
		vps: { working: 'good', unsure: 'warning', silent: 'bad' }[is] ?? 'unknown',
		tunnel: { working: 'good', unsure: 'warning', silent: 'bad', waiting: 'warning', down: 'bad' }[is] ?? 'unknown',
		router: { working: 'good', unsure: 'good', silent: 'good', waiting: 'warning' }[is] ?? 'unknown',
		host: hostsState(relay)
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
				kind: 'error', title: label(relay, relays) + _('The other end is silent'), ...silence(relay)
			};

	for (const relay of relays)
		if (condition(relay) != 'working')
			return {
				kind: 'warning', title: label(relay, relays) + _('It is not known whether the other end answers'),
				text: (relay.heard_s == null)
					? _('Nothing has been heard of it yet.')
					: words.fill(_('It was last heard of %s.'), [ ago(relay.heard_s) ]),
				action: 'diagnose'
			};

	const notes = words.list(status, 'notes').concat(relays.flatMap(missing).map((ip) =>
		words.fill(_('%s does not answer: switch it on, or correct its address'), [ ip ])));

	if (notes.length)
		return { kind: 'warning', title: _('It works, but'), text: notes.join('; '), action: 'diagnose' };

	if (service && !service.enabled)
		return {
			kind: 'warning', title: _('It works, but not after a restart of the router'),
			text: _('The service is not started at boot.'), action: 'enable'
		};

	return { kind: 'success', title: _('It works'), text: _('The tunnel is up, and the other end answers.') };
}

/* What to say of an end that does not answer, and what to do. */
function silence(relay) {
	return (relay.heard_s == null)
		? {
			text: _('Nothing has ever come from it. Is it set up, and does it have the same addresses?'), action: 'vps'
		}
		: {
			text: words.fill(_('It was last heard of %s. Is it switched on, and online?'), [ ago(relay.heard_s) ]),
			action: 'diagnose'
		};
}

/* Traffic per second since the time before, or null where there is none to compare with. */
function rates(now, before) {
	if (!before || !now.counters || !before.counters)
		return null;

	const seconds = (now.time - before.time) / 1000,
	      rate = (counter) => (now.counters[counter] - before.counters[counter]) / seconds;

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

	const byPorts = new Map(), byProtos = new Map();

	for (const { proto, first, last } of mappings) {
		const ports = first ? range(first, last) : '';

		byPorts.set(ports, (byPorts.get(ports) ?? []).concat(proto.toUpperCase()));
	}

	for (const [ ports, protos ] of byPorts) {
		const together = protos.join(', ');

		byProtos.set(together, (byProtos.get(together) ?? []).concat(ports || []));
	}

	return [ ...byProtos ].map(([ protos, ports ]) => protos + (ports.length ? ' ' + ports.join(', ') : '')).join(', ');
}

/* What a forward is called on all pages: by the user's words for it, by its section, or by what it opens. */
function name(forward) {
	return forward.name || (/^\w+$/.test(forward.section) && forward.section) || opens(forward.mappings);
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

return baseclass.extend({ condition, parts, summary, rates, opens, name, split, hosts, missing, ago });
